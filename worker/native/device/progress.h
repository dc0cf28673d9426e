// How far the run under way has come. The compute thread writes it, the communication thread
// watches it.
#pragma once

#include <atomic>
#include <cstdint>

namespace scmoe {

struct RunProgress {
  std::atomic<uint32_t> comm_issued{0};  // ops of the comm queue that are on their stream
  std::atomic<bool> is_graph{false};     // the run is one graph: its ops cannot be seen one by one
  std::atomic<bool> finished{false};

  void reset() {
    comm_issued = 0;
    is_graph = false;
    finished = false;
  }
};

}  // namespace scmoe
