#include "device/watch.h"

#include <algorithm>

#include "device/prepared.h"
#include "error.h"
#include "mesh/members.h"

namespace scmoe {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kInterval{50};  // between two looks at the device

}  // namespace

void Watch::run(const LoadedProgram& loaded, const RunProgress& progress, RunTimes& times) {
  if (loaded.program.queues[int(Queue::kComm)].empty()) return;
  await_end(loaded, progress);
  if (topology_.world_size > 1) collect_arrivals(loaded, times);
}

// The deadline is that of each collective. In a graph the collectives cannot be seen one by one, so
// there it is the deadline of the whole run.
void Watch::await_end(const LoadedProgram& loaded, const RunProgress& progress) {
  const Prepared& prepared = prepared_of(loaded);
  const std::vector<int>& comm = loaded.program.queues[int(Queue::kComm)];
  size_t done = 0;
  bool begun = false;
  Clock::time_point since = Clock::now();
  while (!progress.finished) {
    control_.sleep(done < comm.size() ? loaded.peers_ahead[done] : std::vector<int>{}, int(kInterval.count()));
    const Clock::time_point now = Clock::now();
    if (!progress.is_graph) {
      const size_t issued = progress.comm_issued;
      const size_t before = done;
      while (done < issued && device_.event_done(prepared.end[comm[done]])) ++done;
      const bool begins = done < issued && device_.event_done(prepared.begin[comm[done]]);
      if (done > before || !begun) since = now;
      begun = begins;
    }
    if ((begun || progress.is_graph) && now - since > timeout_) {
      time_out(loaded, loaded.program.ops[comm[std::min(done, comm.size() - 1)]].label);
    }
  }
}

// All ranks meet after a run's collectives, over the mesh, and tell one another when theirs began
// and ended. A rank whose run has not ended (`times` is null) calls as well: then the ranks learn
// who is there, and the result is empty.
std::vector<Journeys> Watch::roll_call(const std::vector<int>& comm, const RunTimes* times, milliseconds timeout) {
  const size_t ranks = size_t(topology_.world_size), each = 2 * comm.size();
  std::vector<double> values(1 + ranks * each);
  if (times != nullptr) {
    values[0] = 1;
    double* const own = values.data() + 1 + size_t(topology_.rank) * each;
    for (size_t at = 0; at < comm.size(); ++at) {
      own[at] = times->start[size_t(comm[at])];
      own[comm.size() + at] = times->end[size_t(comm[at])];
    }
  }
  control_.all_reduce(values, timeout);
  if (size_t(values[0]) != ranks) return {};
  std::vector<Journeys> journeys(ranks);
  for (size_t rank = 0; rank < ranks; ++rank) {
    const auto begin = values.begin() + 1 + std::ptrdiff_t(rank * each), middle = begin + std::ptrdiff_t(comm.size());
    journeys[rank] = {{begin, middle}, {middle, middle + std::ptrdiff_t(comm.size())}};
  }
  return journeys;
}

// The time before the last member arrived at a collective is the ranks' skew, not transfer.
void Watch::collect_arrivals(const LoadedProgram& loaded, RunTimes& times) {
  const std::vector<int>& comm = loaded.program.queues[int(Queue::kComm)];
  const std::vector<Journeys> journeys = roll_call(comm, &times, timeout_);
  if (journeys.empty()) return;
  std::vector<std::vector<int>> peers;
  for (const int op : comm) peers.push_back(peers_of(loaded.program.ops[size_t(op)], topology_));
  const std::vector<double> arrivals = last_arrivals(journeys, topology_.rank, peers);
  for (size_t at = 0; at < comm.size(); ++at) times.ready[size_t(comm[at])] = arrivals[at];
}

// NCCL does not say which peer it is waiting for. So all ranks are called over the mesh: the other
// ranks that hang have waited as long and call at the same time, and the missing one is named.
void Watch::time_out(const LoadedProgram& loaded, const std::string& op) {
  Error error(kPeerTimeout, "the collective did not end within " + std::to_string(timeout_.count()) +
                                " ms, although all ranks answer; set NCCL_DEBUG=INFO to see which links NCCL uses");
  try {
    roll_call(loaded.program.queues[int(Queue::kComm)], nullptr, std::max(timeout_ / 4, milliseconds(500)));
  } catch (const Error& missing) {
    error = missing;
  }
  error.op = op;
  throw error;
}

}  // namespace scmoe
