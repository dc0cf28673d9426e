// Moves segments of memory to and from all peers at once, without copies of its own: what every collective is made of.
#pragma once

#include <poll.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "interrupt.h"
#include "mesh/socket.h"

namespace scmoe {

// Precedes the bytes of one collective from one rank to another. A rank that is elsewhere in the program is noticed
// before it overwrites anything.
struct Header {
  uint32_t sequence;     // of collectives since the mesh was connected
  uint32_t op;           // index in the program; kControl outside any
  uint64_t bytes;        // that follow
  uint32_t fingerprint;  // of program, label and op
  uint32_t reserved;
};
inline constexpr uint32_t kControl = ~0u;

// One direction of one connection: segments in the order they travel. Segment 0 is the header.
class Flow {
 public:
  Flow() { segments_.push_back({}); }

  void add(const void* data, size_t bytes) {
    segments_.push_back({const_cast<void*>(data), bytes});
    total_ += bytes;
  }

  // Segments from this one on may not travel yet.
  void set_limit(size_t limit) { limit_ = limit; }
  // Of a receiving flow: segments before this one come whatever this rank does with what it has got. To sleep until
  // later ones have come could be to sleep for ever.
  void set_certain(size_t certain) { certain_ = certain; }
  size_t size() const { return segments_.size(); }
  uint64_t total() const { return total_; }  // bytes, without header
  size_t finished() const { return next_; }  // segments
  bool done() const { return next_ == size(); }
  bool open() const { return next_ < std::min(limit_, size()); }

 private:
  friend class Exchange;
  bool settle();               // steps over empty segments; whether there were any
  void consume(size_t bytes);  // that were moved
  // Where a message that starts at the next segment ends. A header travels alone until it has been judged.
  size_t end(bool sending) const { return !sending && next_ == 0 ? 1 : std::min(limit_, size()); }
  bool movable() const { return open() && !blocked_; }

  std::vector<iovec> segments_;
  uint64_t total_ = 0;
  size_t next_ = 0;
  size_t limit_ = ~size_t{0};
  size_t certain_ = ~size_t{0};
  bool blocked_ = false;  // the kernel had no more, or took no more; poll says when that changes
};

struct Lane {
  int peer = -1;
  Socket* socket = nullptr;
  Flow send, receive;

 private:
  friend class Exchange;
  Header sent{}, received{};
};

// What moving bytes took.
struct Traffic {
  uint64_t bytes_sent = 0, bytes_received = 0;  // headers included
  uint64_t calls = 0;                           // of sendmsg and recvmsg
  uint64_t wake_ups = 0;                        // returns from poll

  Traffic& operator+=(const Traffic& other);
};

class Exchange {
 public:
  struct Options {
    Header header;  // `bytes` is filled in for each lane
    std::chrono::milliseconds timeout;
    // The lane to send to first: the one after this rank, or all ranks would begin with rank 0.
    size_t first_lane = 0;
    // Called once, when as much is on its way as the kernel takes. May be empty.
    std::function<void()> meanwhile;
    // Called after progress; may release segments by raising limits. May be empty.
    std::function<void()> advance;
  };

  Exchange(std::vector<Lane>& lanes, Options options, Interrupt& interrupt)
      : lanes_(lanes), options_(std::move(options)), interrupt_(interrupt) {}

  // Returns when every segment has travelled. Throws PEER_LOST, PEER_TIMEOUT, BAD_PEER or ABORTED.
  void run();

  // When the last peer's header had come.
  Clock::time_point ready() const { return ready_; }
  const Traffic& traffic() const { return traffic_; }

 private:
  bool finished() const;
  bool stuck() const;
  bool move();
  bool move_some(Lane& lane, Flow& flow, bool sending);
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
  size_t headers_ = 0;  // that have come
  Traffic traffic_;
};

}  // namespace scmoe
