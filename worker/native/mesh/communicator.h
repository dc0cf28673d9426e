// The collectives of the op table over the mesh. Used by the communication thread alone.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "interrupt.h"
#include "mesh/exchange.h"
#include "mesh/socket.h"
#include "program/program.h"

namespace scmoe {

class Communicator {
 public:
  Communicator(const Topology& topology, std::chrono::milliseconds timeout, Interrupt& interrupt)
      : topology_(topology), timeout_(timeout), interrupt_(interrupt) {}

  void attach(std::vector<Socket> sockets);
  bool connected() const { return topology_.world_size == 1 || !sockets_.empty(); }
  // Closes every connection; the peers see PEER_LOST in whatever they wait for.
  void close() { sockets_.clear(); }

  // One op of a program; `index` is its place there. Returns when the last peer had come to it. Throws what
  // Exchange::run throws, with `op` set.
  Clock::time_point run(const ProgramOp& op, uint32_t index);

  // Sum over all ranks, in rank order, so the same bits on each.
  void all_reduce(std::span<double> values) { all_reduce(values, timeout_); }
  void all_reduce(std::span<double> values, std::chrono::milliseconds timeout);

  // Sleeps until the interrupt rings, or for so long (-1: for ever). Throws PEER_LOST as soon as one of `peers` hangs
  // up.
  void sleep(const std::vector<int>& peers, int milliseconds = -1);

  // Ranks other than this one that take part in an op.
  std::vector<int> peers_of(const ProgramOp& op) const;

  // By collectives, headers included. For any thread.
  uint64_t bytes_sent() const { return bytes_sent_; }
  // Of the collectives so far; while none is under way.
  const Traffic& traffic() const { return traffic_; }

 private:
  struct Hooks {
    std::function<void()> meanwhile, advance;  // Exchange::Options
  };

  std::vector<Lane> lanes_to(const std::vector<int>& group);
  void exchange(std::vector<Lane>& lanes, Hooks hooks, std::chrono::milliseconds timeout);
  void all_gather_counts(const ProgramOp& op);
  void all_to_all(const ProgramOp& op);
  void all_reduce(const ProgramOp& op);

  const Topology topology_;
  const std::chrono::milliseconds timeout_;
  Interrupt& interrupt_;
  std::vector<Socket> sockets_;  // by rank
  std::vector<float> scratch_;   // all_reduce: blocks received, not yet summed
  Header header_{};              // of the collective under way
  uint32_t sequence_ = 0;
  Clock::time_point ready_{};  // when its last peer had come
  Traffic traffic_;
  std::atomic<uint64_t> bytes_sent_{0};
};

}  // namespace scmoe
