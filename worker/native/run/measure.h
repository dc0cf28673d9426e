// Runs the steps of a file and measures them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "hardware.h"
#include "run/file.h"

namespace scmoe::run {

struct Options {
  HardwareOptions hardware;
  int threads = 1;
  int warm_up = 3, steps = 10;
  std::vector<PeerAddress> peers;  // by rank; empty for a single rank
  std::chrono::milliseconds timeout{60'000};
  // Share of the MoE layers' time, 0 to less than 1, that the all-to-alls of a single rank are made
  // to take. A negative value leaves them as they are.
  double transfer_share = -1;
};

// Returns one object for the results of a benchmark: title, engine, losses and times.
nlohmann::json measure(const File& file, Options options);

}  // namespace scmoe::run
