#include "mesh/communicator.h"

#include <poll.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "error.h"
#include "mesh/all_reduce.h"
#include "mesh/members.h"
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
    run_collective(op);
  } catch (Error& error) {
    error.op = op.label;
    throw;
  }
  return ready_;
}

void Communicator::run_collective(const ProgramOp& op) {
  switch (op.collective) {
    case Collective::kAllGatherCounts:
      return all_gather_counts(op);
    case Collective::kDispatch:
    case Collective::kCombine:
      return all_to_all(op);
    case Collective::kAllReduce:
      return all_reduce(op);
    case Collective::kNone:
      return;
  }
}

std::vector<Lane> Communicator::lanes_to(const std::vector<int>& members) {
  std::vector<Lane> lanes;
  for (const int rank : members) {
    if (rank != topology_.rank) lanes.emplace_back(rank, &sockets_[size_t(rank)]);
  }
  return lanes;
}

void Communicator::exchange(std::vector<Lane>& lanes, Hooks hooks, std::chrono::milliseconds timeout) {
  const auto lower =
      std::count_if(lanes.begin(), lanes.end(), [&](const Lane& lane) { return lane.peer < topology_.rank; });
  Exchange exchange(lanes, {header_, timeout, size_t(lower), std::move(hooks.meanwhile), std::move(hooks.advance)},
                    interrupt_);
  exchange.run();
  ready_ = exchange.ready();
  traffic_ += exchange.traffic();
  bytes_sent_ = traffic_.bytes_sent;
}

void Communicator::sleep(const std::vector<int>& peers, int milliseconds) {
  std::vector<pollfd> polled = {{interrupt_.fd(), POLLIN, 0}};
  for (const int peer : peers) polled.push_back({sockets_[size_t(peer)].fd(), POLLRDHUP, 0});
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
  std::vector<Lane> lanes = lanes_to(group_ranks(topology_, Group::kWorld));
  std::vector<double> theirs(lanes.size() * values.size());
  for (size_t i = 0; i < lanes.size(); ++i) {
    lanes[i].send.add(values.data(), values.size_bytes());
    lanes[i].receive.add(&theirs[i * values.size()], values.size_bytes());
  }
  exchange(lanes, {}, timeout);
  std::vector<double> sum;
  for (int rank = 0; rank < topology_.world_size; ++rank) {
    const auto lane = size_t(rank - (rank > topology_.rank));
    const double* const term = rank == topology_.rank ? values.data() : &theirs[lane * values.size()];
    if (rank == 0) sum.assign(term, term + values.size());
    for (size_t i = 0; rank > 0 && i < sum.size(); ++i) sum[i] += term[i];
  }
  std::copy(sum.begin(), sum.end(), values.begin());
}

void Communicator::all_gather_counts(const ProgramOp& op) {
  const int64_t experts = op.attrs.experts;
  const size_t bytes = size_t(experts) * sizeof(int32_t);
  int32_t* const all = static_cast<int32_t*>(op.out[0]);
  std::vector<Lane> lanes = lanes_to(group_ranks(topology_, group_of(op)));
  std::memcpy(all + topology_.rank * experts, op.in[0], bytes);
  for (Lane& lane : lanes) {
    lane.send.add(op.in[0], bytes);
    lane.receive.add(all + lane.peer * experts, bytes);
  }
  exchange(lanes, {}, timeout_);
}

void Communicator::all_to_all(const ProgramOp& op) {
  const std::vector<int> members = group_ranks(topology_, group_of(op));
  const RowExchange rows(op, static_cast<const int32_t*>(op.in[1]), topology_, members);
  std::vector<Lane> lanes = lanes_to(members);
  for (size_t i = 0; i < lanes.size(); ++i) {
    const size_t member = i + (i >= rows.self());
    for (const RowRange& range : merged(rows.sends()[member])) lanes[i].send.add(rows.source(range), rows.bytes(range));
    for (const RowRange& range : merged(rows.receives()[member])) {
      lanes[i].receive.add(rows.target(range), rows.bytes(range));
    }
  }
  exchange(lanes, {.meanwhile = [&] { copy_own_rows(rows); }, .advance = {}}, timeout_);
}

void Communicator::all_reduce(const ProgramOp& op) {
  const std::vector<int> members = group_ranks(topology_, group_of(op));
  std::vector<Lane> lanes = lanes_to(members);
  if (lanes.empty()) return;
  AllReduce reduction(merge_neighbours(op), members, topology_.rank, scratch_);
  reduction.plan(lanes);
  exchange(lanes, {.meanwhile = {}, .advance = [&] { reduction.advance(lanes); }}, timeout_);
}

}  // namespace scmoe
