// scmoe-run: runs exported programs without Node, on any backend, and prints one JSON object.
//
//   scmoe-run FILE [--backend cpu|cuda] [--device N] [--threads N] [--warm-up N] [--steps N]
//             [--no-graphs] [--peers HOST:PORT,...] [--transfer-share 0.5] [--max-ctas N]
//             [--cta-policy N] [--padded] [--timeout-seconds N]
//
// Exit code 69: the hardware or something that it needs is missing; 64: the command or the file is
// wrong; 1: the run failed.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>

#include "error.h"
#include "run/measure.h"

namespace scmoe::run {
namespace {

int integer(const std::string& name, const std::string& text) {
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || value < 0 || value > 1'000'000) {
    throw std::invalid_argument(name + " is '" + text + "', wants a whole number from 0 to 1000000");
  }
  return int(value);
}

double share(const std::string& name, const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= 0 && value < 1)) {
    throw std::invalid_argument(name + " is '" + text + "', wants a number from 0 to less than 1");
  }
  return value;
}

std::vector<PeerAddress> peers_from(const std::string& text) {
  std::vector<PeerAddress> peers;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string one = text.substr(begin, end - begin);
    const size_t colon = one.rfind(':');
    if (colon == std::string::npos)
      throw std::invalid_argument("--peers has the entry '" + one + "', wants HOST:PORT,...");
    peers.push_back({one.substr(0, colon), integer("--peers", one.substr(colon + 1))});
    begin = end + 1;
  }
  return peers;
}

struct Command {
  std::string file;
  Options options;
};

Command parse(int count, char** words) {
  Command command;
  Options& options = command.options;
  DeviceOptions& device = options.hardware.device;
  const auto number = [](int& target) {
    return [&target](const std::string& name, const std::string& value) { target = integer(name, value); };
  };
  const std::map<std::string, std::function<void(const std::string&, const std::string&)>> settings = {
      {"--backend", [&](auto&, auto& value) { options.hardware.backend = value; }},
      {"--device", number(device.index)},
      {"--threads", number(options.threads)},
      {"--warm-up", number(options.warm_up)},
      {"--steps", number(options.steps)},
      {"--max-ctas", number(device.collectives.max_ctas)},
      {"--cta-policy", number(device.collectives.cta_policy)},
      {"--peers", [&](auto&, auto& value) { options.peers = peers_from(value); }},
      {"--transfer-share", [&](auto& name, auto& value) { options.transfer_share = share(name, value); }},
      {"--timeout-seconds",
       [&](auto& name, auto& value) { options.timeout = std::chrono::seconds(integer(name, value)); }},
  };
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    const auto setting = settings.find(word);
    if (word == "--no-graphs") {
      device.graphs = false;
    } else if (word == "--padded") {
      device.collectives.padded = true;
    } else if (setting != settings.end()) {
      if (++i == count) throw std::invalid_argument(word + " wants a value");
      setting->second(word, words[i]);
    } else if (word.starts_with("--") || !command.file.empty()) {
      throw std::invalid_argument("'" + word + "' is not an option; worker/native/run/main.cc lists the options");
    } else {
      command.file = word;
    }
  }
  if (command.file.empty()) throw std::invalid_argument("no file is given; write one with bench/gpu/export.ts");
  return command;
}

}  // namespace
}  // namespace scmoe::run

int main(int count, char** words) {
  using namespace scmoe;
  try {
    const run::Command command = run::parse(count, words);
    std::printf("%s\n", run::measure(run::read_file(command.file), command.options).dump().c_str());
    return 0;
  } catch (const Error& error) {
    const std::string op = error.op.empty() ? "" : "op '" + error.op + "': ";
    std::fprintf(stderr, "scmoe-run: %s: %s%s\n", error.code, op.c_str(), error.what());
    const std::string code = error.code;
    return code == kDeviceMissing ? 69 : code == kBadProgram ? 64 : 1;
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "scmoe-run: %s\n", error.what());
    return 64;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "scmoe-run: %s\n", error.what());
    return 1;
  }
}
