// A bedside device on an ESP32 with an I2S amplifier (for example MAX98357A). README.md says which libraries it needs.
#include <WebSocketsClient.h>
#include <WiFi.h>
#include <driver/i2s.h>

#include "device_core.h"
#include "settings.h"  // copy settings.example.h

namespace {

WebSocketsClient webSocket;

class Hardware : public voicecare::Port {
 public:
  void send(const std::string& frame) override { webSocket.sendTXT(frame.c_str(), frame.size()); }

  void play(const uint8_t* samples, size_t size) override {
    size_t written = 0;
    i2s_write(I2S_NUM_0, samples, size, &written, portMAX_DELAY);  // waits: the rest of the audio stays in the server
    endsAt_ = max(endsAt_, static_cast<int64_t>(millis())) + static_cast<int64_t>(size) / 32;  // 32 bytes a millisecond
  }

  size_t unplayed() override {
    const int64_t left = endsAt_ - static_cast<int64_t>(millis());
    return left > 0 ? static_cast<size_t>(left * 32) : 0;
  }

  void silence() override {
    i2s_zero_dma_buffer(I2S_NUM_0);
    endsAt_ = 0;
  }

  void disconnect() override { webSocket.disconnect(); }
  uint32_t random(uint32_t below) override { return esp_random() % below; }
  void show(const std::string& state) override { Serial.println(state.c_str()); }

 private:
  int64_t endsAt_ = 0;
};

Hardware hardware;
voicecare::DeviceCore core(hardware);

void onEvent(WStype_t type, uint8_t* payload, size_t length) {
  switch (type) {
    case WStype_CONNECTED:
      core.onConnected(millis());
      break;
    case WStype_TEXT:
      core.onText(std::string(reinterpret_cast<char*>(payload), length), millis());
      break;
    case WStype_BIN:
      core.onAudio(payload, length, millis());
      break;
    case WStype_DISCONNECTED: {
      // The library hands over neither the close code nor the body of a refused handshake.
      const uint32_t delay = core.onClosed(0, "");
      webSocket.setReconnectInterval(delay);
      break;
    }
    default:
      break;
  }
}

void startSound() {
  const i2s_config_t config = {
      .mode = static_cast<i2s_mode_t>(I2S_MODE_MASTER | I2S_MODE_TX),
      .sample_rate = 16000,
      .bits_per_sample = I2S_BITS_PER_SAMPLE_16BIT,
      .channel_format = I2S_CHANNEL_FMT_ONLY_LEFT,
      .communication_format = I2S_COMM_FORMAT_STAND_I2S,
      .intr_alloc_flags = 0,
      .dma_buf_count = 8,
      .dma_buf_len = 512,
      .use_apll = false,
      .tx_desc_auto_clear = true,  // silence when nothing comes
  };
  const i2s_pin_config_t pins = {
      .bck_io_num = PIN_BCLK, .ws_io_num = PIN_LRC, .data_out_num = PIN_DIN, .data_in_num = I2S_PIN_NO_CHANGE};
  i2s_driver_install(I2S_NUM_0, &config, 0, nullptr);
  i2s_set_pin(I2S_NUM_0, &pins);
}

}  // namespace

void setup() {
  Serial.begin(115200);
  startSound();
  WiFi.begin(WIFI_NAME, WIFI_PASSWORD);
  while (WiFi.status() != WL_CONNECTED) delay(100);
  webSocket.onEvent(onEvent);
  webSocket.setExtraHeaders("Authorization: Bearer " DEVICE_TOKEN);
  webSocket.begin(SERVER_HOST, SERVER_PORT, "/ws/device/", "voicecare.v1");
}

void loop() {
  webSocket.loop();
  core.tick(millis());
}
