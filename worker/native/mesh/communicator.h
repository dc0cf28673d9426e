// The collectives of the op table over the mesh. Only the communication thread uses it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "interrupt.h"
#include "mesh/exchange.h"
#include "mesh/flow.h"
#include "mesh/socket.h"
#include "program/program.h"

namespace scmoe {

class Communicator {
 public:
  Communicator(const Topology& topology, std::chrono::milliseconds timeout, Interrupt& interrupt)
      : topology_(topology), timeout_(timeout), interrupt_(interrupt) {}

  // Takes one connected socket per rank, by rank.
  void attach(std::vector<Socket> sockets);
  bool connected() const { return topology_.world_size == 1 || !sockets_.empty(); }
  // Closes every connection; whatever the peers are waiting for ends with PEER_LOST.
  void close() { sockets_.clear(); }

  // Runs one op of a program; `index` is its place there. Returns the time at which the last peer
  // had arrived. Throws what Exchange::run throws, with `op` set.
  Clock::time_point run(const ProgramOp& op, uint32_t index);

  // Replaces `values` by their sum over all ranks, added in rank order: the same bits on each rank.
  void all_reduce(std::span<double> values) { all_reduce(values, timeout_); }
  void all_reduce(std::span<double> values, std::chrono::milliseconds timeout);

  // Sleeps until the interrupt rings or `milliseconds` have passed (-1: no limit). Throws PEER_LOST
  // as soon as one of `peers` closes its connection.
  void sleep(const std::vector<int>& peers, int milliseconds = -1);

  // Bytes sent by collectives, headers included. Any thread may call it.
  uint64_t bytes_sent() const { return bytes_sent_; }
  // The traffic of all collectives so far. Not to be called while a collective is under way.
  const Traffic& traffic() const { return traffic_; }

 private:
  struct Hooks {
    std::function<void()> meanwhile, advance;  // see Exchange::Options
  };

  std::vector<Lane> lanes_to(const std::vector<int>& members);
  void exchange(std::vector<Lane>& lanes, Hooks hooks, std::chrono::milliseconds timeout);
  void run_collective(const ProgramOp& op);
  void all_gather_counts(const ProgramOp& op);
  void all_to_all(const ProgramOp& op);
  void all_reduce(const ProgramOp& op);

  const Topology topology_;
  const std::chrono::milliseconds timeout_;
  Interrupt& interrupt_;
  std::vector<Socket> sockets_;  // by rank
  std::vector<float> scratch_;   // all_reduce: received blocks that are not summed yet
  Header header_{};              // of the collective under way
  uint32_t sequence_ = 0;
  Clock::time_point ready_{};  // when the last peer arrived at the collective under way
  Traffic traffic_;
  std::atomic<uint64_t> bytes_sent_{0};
};

}  // namespace scmoe
