#include "mesh/members.h"

#include <algorithm>

namespace scmoe {

Group group_of(const ProgramOp& op) {
  switch (op.collective) {
    case Collective::kAllReduce:
      return op.group;
    case Collective::kDispatch:
    case Collective::kCombine:
      return Group::kExpertParallel;
    case Collective::kAllGatherCounts:
    case Collective::kNone:
      return Group::kWorld;
  }
  return Group::kWorld;
}

std::vector<int> peers_of(const ProgramOp& op, const Topology& topology) {
  std::vector<int> peers = group_ranks(topology, group_of(op));
  std::erase(peers, topology.rank);
  return peers;
}

size_t place_of(const std::vector<int>& members, int rank) {
  return size_t(std::find(members.begin(), members.end(), rank) - members.begin());
}

}  // namespace scmoe
