// The communication thread during a run on a device: it notices peers that are gone and
// collectives that do not end, and finds out when all ranks had arrived at each collective.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "device.h"
#include "device/arrivals.h"
#include "device/progress.h"
#include "executor/executor.h"
#include "mesh/communicator.h"

namespace scmoe {

class Watch {
 public:
  // `control` connects the hosts of all ranks.
  Watch(const Device& device, const EngineOptions& options, Communicator& control)
      : device_(device), topology_(options.topology), timeout_(options.timeout), control_(control) {}

  // Returns once the run has finished, with `times.ready` filled in. Throws PEER_LOST, PEER_TIMEOUT
  // or ABORTED. The thread must use the device.
  void run(const LoadedProgram& loaded, const RunProgress& progress, RunTimes& times);

 private:
  void await_end(const LoadedProgram& loaded, const RunProgress& progress);
  std::vector<Journeys> roll_call(const std::vector<int>& comm, const RunTimes* times,
                                  std::chrono::milliseconds timeout);
  void collect_arrivals(const LoadedProgram& loaded, RunTimes& times);
  [[noreturn]] void time_out(const LoadedProgram& loaded, const std::string& op);

  const Device& device_;
  const Topology topology_;
  const std::chrono::milliseconds timeout_;
  Communicator& control_;
};

}  // namespace scmoe
