// Runs a file's steps and measures them.
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
  std::vector<PeerAddress> peers;  // by rank, where there is more than one
  std::chrono::milliseconds timeout{60'000};
  // Share of the MoE layers' time that transfers are to take where a rank sends to itself alone, 0 to 1; negative: as
  // long as they do.
  double transfer_share = -1;
};

// What was run where, losses and times: one object for the results of a benchmark.
nlohmann::json measure(const File& file, Options options);

}  // namespace scmoe::run
