#include "mesh/communicator.h"

#include <poll.h>

#include <cerrno>
#include <cstring>

#include "error.h"
#include "mesh/all_reduce.h"
#include "mesh/row_exchange.h"

namespace scmoe {

void Communicator::attach(std::vector<Socket> sockets) {
  sockets_ = std::move(sockets);
  for (Socket& socket : sockets_) {
    if (socket) socket.grow_buffers();
  }
}

Clock::time_point Communicator::run(const ProgramOp& op, uint32_t index) {
  header_ = {++sequence_, index, 0, op.fingerprint, 0};
  ready_ = Clock::now();
  try {
    switch (op.collective) {
      case Collective::kAllGatherCounts:
        all_gather_counts(op);
        break;
      case Collective::kDispatch:
      case Collective::kCombine:
        all_to_all(op);
        break;
      case Collective::kAllReduce:
        all_reduce(op);
        break;
      case Collective::kNone:
        break;
    }
  } catch (Error& error) {
    error.op = op.label;
    throw;
  }
  return ready_;
}

std::vector<int> Communicator::peers_of(const ProgramOp& op) const {
  Group group = Group::kWorld;
  if (op.collective == Collective::kAllReduce) group = op.group;
  if (op.collective == Collective::kDispatch || op.collective == Collective::kCombine) group = Group::kExpertParallel;
  std::vector<int> peers = group_ranks(topology_, group);
  std::erase(peers, topology_.rank);
  return peers;
}

std::vector<Lane> Communicator::lanes_to(const std::vector<int>& group) {
  std::vector<Lane> lanes;
  for (const int rank : group) {
    if (rank == topology_.rank) continue;
    lanes.emplace_back();
    lanes.back().peer = rank;
    lanes.back().socket = &sockets_[rank];
  }
  return lanes;
}

void Communicator::exchange(std::vector<Lane>& lanes, Hooks hooks, std::chrono::milliseconds timeout) {
  const auto lower = std::count_if(lanes.begin(), lanes.end(), [&](const Lane& l) { return l.peer < topology_.rank; });
  Exchange exchange(lanes, {header_, timeout, size_t(lower), std::move(hooks.meanwhile), std::move(hooks.advance)},
                    interrupt_);
  exchange.run();
  ready_ = exchange.ready();
  traffic_ += exchange.traffic();
  bytes_sent_ = traffic_.bytes_sent;
}

void Communicator::sleep(const std::vector<int>& peers, int milliseconds) {
  std::vector<pollfd> polled = {{interrupt_.fd(), POLLIN, 0}};
  for (const int peer : peers) polled.push_back({sockets_[peer].fd(), POLLRDHUP, 0});
  poll(polled.data(), polled.size(), milliseconds);
  if (polled[0].revents != 0) interrupt_.drain();
  interrupt_.check();
  for (size_t i = 1; i < polled.size(); ++i) {
    if (polled[i].revents == 0) continue;
    throw Error(kPeerLost, "rank " + std::to_string(peers[i - 1]) + " closed its connection", peers[i - 1]);
  }
}

void Communicator::all_reduce(std::span<double> values, std::chrono::milliseconds timeout) {
  header_ = {++sequence_, kControl, 0, 0, 0};
  const std::vector<int> world = group_ranks(topology_, Group::kWorld);
  std::vector<Lane> lanes = lanes_to(world);
  std::vector<double> theirs(lanes.size() * values.size());
  for (size_t i = 0; i < lanes.size(); ++i) {
    lanes[i].send.add(values.data(), values.size_bytes());
    lanes[i].receive.add(&theirs[i * values.size()], values.size_bytes());
  }
  exchange(lanes, {}, timeout);
  std::vector<double> sum;
  for (int rank = 0; rank < topology_.world_size; ++rank) {
    const size_t lane = rank - (rank > topology_.rank);
    const double* const term = rank == topology_.rank ? values.data() : &theirs[lane * values.size()];
    if (rank == 0) sum.assign(term, term + values.size());
    for (size_t i = 0; rank > 0 && i < sum.size(); ++i) sum[i] += term[i];
  }
  std::copy(sum.begin(), sum.end(), values.begin());
}

void Communicator::all_gather_counts(const ProgramOp& op) {
  const int64_t experts = op.attrs.experts;
  int32_t* const all = static_cast<int32_t*>(op.out[0]);
  std::vector<Lane> lanes = lanes_to(group_ranks(topology_, Group::kWorld));
  std::memcpy(all + topology_.rank * experts, op.in[0], experts * sizeof(int32_t));
  for (Lane& lane : lanes) {
    lane.send.add(op.in[0], experts * sizeof(int32_t));
    lane.receive.add(all + lane.peer * experts, experts * sizeof(int32_t));
  }
  exchange(lanes, {}, timeout_);
}

void Communicator::all_to_all(const ProgramOp& op) {
  const std::vector<int> group = group_ranks(topology_, Group::kExpertParallel);
  const RowExchange rows(op.attrs, static_cast<const int32_t*>(op.in[1]), topology_, group);
  const bool dispatch = op.collective == Collective::kDispatch;
  const std::vector<RowRanges>& from = dispatch ? rows.by_expert() : rows.by_source();
  const std::vector<RowRanges>& to = dispatch ? rows.by_source() : rows.by_expert();
  rows.check_room("rows", dispatch ? rows.rows_by_expert() : rows.rows_by_source(), op.in_elements[0]);
  rows.check_room("out", dispatch ? rows.rows_by_source() : rows.rows_by_expert(), op.out_elements[0]);

  const int64_t row_bytes = op.attrs.dim * size_of(op.in_types[0]);
  const char* const source = static_cast<const char*>(op.in[0]);
  char* const target = static_cast<char*>(op.out[0]);
  std::vector<Lane> lanes = lanes_to(group);
  size_t lane = 0, self = 0;
  for (size_t member = 0; member < group.size(); ++member) {
    if (group[member] == topology_.rank) {
      self = member;
      continue;
    }
    for (const RowRange& range : merged(from[member])) {
      lanes[lane].send.add(source + range.first * row_bytes, range.count * row_bytes);
    }
    for (const RowRange& range : merged(to[member])) {
      lanes[lane].receive.add(target + range.first * row_bytes, range.count * row_bytes);
    }
    ++lane;
  }
  const auto copy_own = [&] { copy_rows(source, from[self], target, to[self], row_bytes); };
  exchange(lanes, {.meanwhile = copy_own, .advance = {}}, timeout_);
}

void Communicator::all_reduce(const ProgramOp& op) {
  const std::vector<int> group = group_ranks(topology_, op.group);
  std::vector<Lane> lanes = lanes_to(group);
  if (lanes.empty()) return;
  AllReduce reduction(merge_neighbours(op), group, topology_.rank, scratch_);
  reduction.plan(lanes);
  exchange(lanes, {.meanwhile = {}, .advance = [&] { reduction.advance(lanes); }}, timeout_);
}

}  // namespace scmoe
