// A device without a network and without a sound card: what to send, what to play and when to connect again. It is
// plain C++17, so a test runs it on a PC. voicecare_device.ino connects it to Wi-Fi and I2S.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "json_fields.h"

namespace voicecare {

constexpr uint32_t kFirstDelayMs = 1000, kMaxDelayMs = 30000, kRefusedDelayMs = 15 * 60 * 1000;
constexpr uint32_t kQuietMs = 10000, kPongMs = 5000;
constexpr size_t kKnownDeliveries = 16;

// What the core needs of the hardware.
class Port {
 public:
  virtual ~Port() = default;
  virtual void send(const std::string& frame) = 0;              // a text frame
  virtual void play(const uint8_t* samples, size_t size) = 0;   // waits while the sound card has enough
  virtual size_t unplayed() = 0;                                // bytes that were given to `play` and are not audible yet
  virtual void silence() = 0;                                   // drop them
  virtual void disconnect() = 0;                                // drop the WebSocket
  virtual uint32_t random(uint32_t below) = 0;
  virtual void show(const std::string& state) = 0;              // for a display or a log, not for the patient
};

class DeviceCore {
 public:
  explicit DeviceCore(Port& port) : port_(port) {}

  void onConnected(uint32_t now) {
    lastFrameAt_ = now;
    isPinged_ = false;
    start();
  }

  void onText(const std::string& frame, uint32_t now) {
    lastFrameAt_ = now;
    isPinged_ = false;
    const std::string type = stringField(frame, "type"), id = stringField(frame, "id");
    if (type == "conversation.started") {
      if (stringField(frame, "initiated") == "device") onConversation(frame);
    } else if (type == "conversation.ended") {  // it was resumed elsewhere
      isOpen_ = false;
      conversation_.clear();
      start();
    } else if (type == "speech.started") {
      playing_ = id;
      isRepetition_ = isHeard(id) || isReceived(id);
    } else if (type == "speech.finished" || type == "speech.failed") {
      if (id == playing_) {
        if (isRepetition_ && isHeard(id)) acknowledge(id);  // otherwise `tick` does, after the last sample
        else if (!isRepetition_ && type == "speech.finished") ends_.push_back({id, written_});
        playing_.clear();
      }
    } else if (type == "speech.interrupted") {
      if (id == playing_) dropPlaying();
    } else if (type == "error" && stringField(frame, "code") == "unknown_id" && !isOpen_) {
      conversation_.clear();  // it has ended
      start();
    } else if (type == "error" || type == "notice") {
      port_.show(stringField(frame, "message"));
    }
  }

  // PCM ends anywhere within a sample. The sound card gets whole samples.
  void onAudio(const uint8_t* data, size_t size, uint32_t now) {
    lastFrameAt_ = now;
    isPinged_ = false;
    if (playing_.empty() || isRepetition_ || size == 0) return;
    if (hasHalf_) {
      const uint8_t sample[2] = {half_, data[0]};
      port_.play(sample, 2);
      written_ += 2;
      data++;
      size--;
    }
    const size_t whole = size & ~static_cast<size_t>(1);
    if (whole > 0) port_.play(data, whole);
    written_ += whole;
    hasHalf_ = whole < size;
    if (hasHalf_) half_ = data[whole];
  }

  // Returns in how many milliseconds to connect again. `refusal` is the `code` of a refused handshake, or "".
  uint32_t onClosed(int closeCode, const std::string& refusal) {
    isOpen_ = false;
    if (!playing_.empty()) dropPlaying();  // it is incomplete, and will come again
    const bool isRefused = (!refusal.empty() && refusal != "shutting_down") || closeCode == 4001 || closeCode == 4003 ||
                           (closeCode >= 4400 && closeCode < 4500);
    if (isRefused) {
      port_.show("A person has to look at this device: " + (refusal.empty() ? std::to_string(closeCode) : refusal));
      return closeCode == 4001 ? UINT32_MAX : kRefusedDelayMs;  // replaced: another device uses this token
    }
    const uint32_t longest = closeCode == 4012 || refusal == "shutting_down" ? kFirstDelayMs : delayMs_;
    delayMs_ = delayMs_ * 2 < kMaxDelayMs ? delayMs_ * 2 : kMaxDelayMs;
    return port_.random(longest);
  }

  // Call it every few milliseconds: acknowledges what was played, and notices a dead network.
  void tick(uint32_t now) {
    const uint64_t unplayed = port_.unplayed(), played = unplayed < written_ ? written_ - unplayed : 0;
    while (!ends_.empty() && ends_.front().at <= played) {
      const std::string id = ends_.front().id;
      ends_.pop_front();
      if (id.rfind("srv-", 0) != 0) continue;
      heard_.push_back(id);
      if (heard_.size() > kKnownDeliveries) heard_.pop_front();
      acknowledge(id);
    }
    const uint32_t quiet = now - lastFrameAt_;
    if (isPinged_ && quiet > kQuietMs + kPongMs) {
      isPinged_ = false;
      lastFrameAt_ = now;
      port_.disconnect();
    } else if (!isPinged_ && isOpen_ && quiet > kQuietMs) {
      isPinged_ = true;
      port_.send("{\"type\":\"ping\"}");
    }
  }

  void speak(const std::string& text) {
    if (!isOpen_) return;
    port_.send("{\"type\":\"speak\",\"id\":\"own-" + std::to_string(port_.random(UINT32_MAX)) + "\",\"text\":" +
               quoted(text) + "}");
  }

  // Silence at once. Speech that the server started is not stopped by the server, and comes again.
  void interrupt() {
    port_.send("{\"type\":\"interrupt\"}");
    if (playing_.rfind("srv-", 0) != 0) dropPlaying();
  }

 private:
  struct End {
    std::string id;
    uint64_t at;  // the number of bytes of all speeches up to its end
  };

  void start() {
    std::string frame = "{\"type\":\"conversation.start\",\"format\":\"pcm_16000\"";
    if (!conversation_.empty()) frame += ",\"resume\":" + quoted(conversation_);
    else if (isGreeted_) frame += ",\"greeting\":false";
    port_.send(frame + "}");
  }

  void onConversation(const std::string& frame) {
    isOpen_ = isGreeted_ = true;
    delayMs_ = kFirstDelayMs;
    conversation_ = stringField(frame, "conversation");
    for (const std::string& id : heard_) acknowledge(id);  // it may have been lost with the connection
    port_.show(stringField(frame, "companion"));
  }

  void acknowledge(const std::string& id) {
    if (isOpen_) port_.send("{\"type\":\"ack\",\"id\":" + quoted(id) + "}");
  }

  bool isHeard(const std::string& id) const {
    for (const std::string& heard : heard_) {
      if (heard == id) return true;
    }
    return false;
  }

  // Whether the speech was received to its end, and still plays.
  bool isReceived(const std::string& id) const {
    for (const End& end : ends_) {
      if (end.id == id) return true;
    }
    return false;
  }

  void dropPlaying() {
    port_.silence();
    ends_.clear();
    hasHalf_ = false;
    written_ = 0;
    playing_.clear();
  }

  Port& port_;
  std::string conversation_, playing_;
  std::deque<End> ends_;            // of speeches that were received to their end
  std::deque<std::string> heard_;   // server-started speeches that were played to their end
  bool isOpen_ = false, isGreeted_ = false, isPinged_ = false, isRepetition_ = false, hasHalf_ = false;
  uint8_t half_ = 0;
  uint32_t lastFrameAt_ = 0, delayMs_ = kFirstDelayMs;
  uint64_t written_ = 0;
};

}  // namespace voicecare
