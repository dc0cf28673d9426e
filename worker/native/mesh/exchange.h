// Moves segments of memory to and from all peers at once, without copies of its own. Every
// collective is made of such exchanges.
#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "interrupt.h"
#include "mesh/flow.h"
#include "mesh/socket.h"

namespace scmoe {

// The cost of moving bytes.
struct Traffic {
  uint64_t bytes_sent = 0, bytes_received = 0;  // headers included
  uint64_t calls = 0;                           // calls of sendmsg and recvmsg
  uint64_t wake_ups = 0;                        // returns from poll

  Traffic& operator+=(const Traffic& other);
};

class Exchange {
 public:
  struct Options {
    Header header;  // run() fills in `bytes` for each lane
    std::chrono::milliseconds timeout;
    // The lane to send to first. It is the one after this rank, so that not all ranks begin with
    // rank 0.
    size_t first_lane = 0;
    // Called once, when the kernel has taken as much as it can. May be empty.
    std::function<void()> meanwhile;
    // Called after progress; may release segments by raising limits. May be empty.
    std::function<void()> advance;
  };

  Exchange(std::vector<Lane>& lanes, Options options, Interrupt& interrupt)
      : lanes_(lanes), options_(std::move(options)), interrupt_(interrupt) {}

  // Returns when every segment has travelled. Throws PEER_LOST, PEER_TIMEOUT, BAD_PEER or ABORTED.
  void run();

  // The time at which the last peer's header arrived.
  Clock::time_point ready() const { return ready_; }
  const Traffic& traffic() const { return traffic_; }

 private:
  void begin();
  bool finished() const;
  bool stuck() const;
  bool move();
  bool move_some(Lane& lane, Flow& flow);
  void check_header(const Lane& lane) const;
  static void set_low_water(const Lane& lane);
  void wait();
  void wake(const std::vector<pollfd>& polled);
  [[noreturn]] void time_out() const;
  int silent_peer() const;

  std::vector<Lane>& lanes_;
  Options options_;
  Interrupt& interrupt_;
  Clock::time_point deadline_{};
  Clock::time_point ready_{};
  size_t num_headers_ = 0;  // received so far
  Traffic traffic_;
};

}  // namespace scmoe
