// Runs the core of examples/esp32 on a PC. Each line of the standard input is an event, each line of the output an
// action:
//   connected NOW | text NOW JSON | audio NOW HEX | closed CODE REFUSAL | tick NOW | unplayed BYTES | speak TEXT | interrupt
//   send JSON | play HEX | silence | disconnect | again MILLISECONDS | show TEXT
#include <iostream>
#include <sstream>
#include <vector>

#include "device_core.h"

namespace {

class Host : public voicecare::Port {
 public:
  size_t left = 0;

  void send(const std::string& frame) override { std::cout << "send " << frame << std::endl; }
  void play(const uint8_t* samples, size_t size) override {
    static const char digits[] = "0123456789abcdef";
    std::cout << "play ";
    for (size_t at = 0; at < size; at++) std::cout << digits[samples[at] >> 4] << digits[samples[at] & 15];
    std::cout << std::endl;
  }
  size_t unplayed() override { return left; }
  void silence() override { std::cout << "silence" << std::endl; }
  void disconnect() override { std::cout << "disconnect" << std::endl; }
  uint32_t random(uint32_t below) override { return below - 1; }
  void show(const std::string& state) override { std::cout << "show " << state << std::endl; }
};

}  // namespace

int main() {
  Host host;
  voicecare::DeviceCore core(host);
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string event, rest;
    uint32_t number = 0;
    words >> event;
    if (event != "speak" && event != "interrupt") words >> number;
    std::getline(words >> std::ws, rest);
    if (event == "connected") core.onConnected(number);
    if (event == "text") core.onText(rest, number);
    if (event == "closed") {
      const uint32_t delay = core.onClosed(static_cast<int>(number), rest);
      std::cout << "again " << delay << std::endl;
    }
    if (event == "tick") core.tick(number);
    if (event == "unplayed") host.left = number;
    if (event == "speak") core.speak(rest);
    if (event == "interrupt") core.interrupt();
    if (event == "audio") {
      std::vector<uint8_t> data;
      for (size_t at = 0; at + 1 < rest.size(); at += 2) data.push_back(std::stoi(rest.substr(at, 2), nullptr, 16));
      core.onAudio(data.data(), data.size(), number);
    }
    std::cout << "." << std::endl;
  }
}
