// The bytes that travel over one connection during one collective: a header, then segments of
// memory, in both directions.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mesh/socket.h"

namespace scmoe {

// Precedes the bytes of one collective from one rank to another. With it a rank notices that its
// peer is elsewhere in the program before the peer's bytes overwrite anything.
struct Header {
  uint32_t sequence;     // number of the collective since the mesh was connected
  uint32_t op;           // index in the program; kControl outside any program
  uint64_t bytes;        // bytes that follow the header
  uint32_t fingerprint;  // of the program's name, the op's label and the op
  uint32_t reserved;
};
inline constexpr uint32_t kControl = ~0u;

enum class Direction : uint8_t { kSend, kReceive };

// One direction of one connection: segments in the order they travel. Segment 0 is the header.
class Flow {
 public:
  explicit Flow(Direction direction) : direction_(direction) { segments_.push_back({}); }

  void add(const void* data, size_t bytes) {
    segments_.push_back({const_cast<void*>(data), bytes});
    total_ += bytes;
  }
  void set_header(Header& header) { segments_[0] = {&header, sizeof header}; }

  // Holds back the segments from `limit` on until the limit is raised.
  void set_limit(size_t limit) { limit_ = limit; }
  // For a receiving flow: the peer sends the segments before `certain` without waiting for this
  // rank. Never block on later segments: the peer may be waiting for this rank to send first
  // (deadlock).
  void set_certain(size_t certain) { certain_ = certain; }

  Direction direction() const { return direction_; }
  size_t size() const { return segments_.size(); }
  uint64_t total() const { return total_; }  // bytes without the header
  size_t finished() const { return next_; }  // number of segments that have travelled
  bool done() const { return next_ == size(); }
  bool open() const { return next_ < std::min(limit_, size()); }
  bool movable() const { return open() && !blocked_; }

  // After a system call: whether the kernel had no more bytes or no more room. poll(2) says when
  // that has changed.
  void set_blocked(bool blocked) { blocked_ = blocked; }

  // Steps over empty segments and returns whether there were any.
  bool settle();
  // Marks bytes as moved.
  void consume(size_t bytes);
  // Writes the next segments to `vectors`, at most `most_bytes` together. Returns how many vectors
  // and bytes they are.
  struct Batch {
    size_t vectors = 0, bytes = 0;
  };
  Batch next_batch(iovec* vectors, size_t most_vectors, size_t most_bytes) const;
  // Bytes, at most `most`, that will come without this rank doing anything for them.
  size_t certain_bytes(size_t most) const;

 private:
  // The end of a message that starts at the next segment. A received header travels alone, so that
  // it can be judged before any memory is written.
  size_t end() const { return direction_ == Direction::kReceive && next_ == 0 ? 1 : std::min(limit_, size()); }

  const Direction direction_;
  std::vector<iovec> segments_;
  uint64_t total_ = 0;
  size_t next_ = 0;
  size_t limit_ = ~size_t{0};
  size_t certain_ = ~size_t{0};
  bool blocked_ = false;
};

// The connection to one peer during one collective.
struct Lane {
  Lane(int peer, Socket* socket) : peer(peer), socket(socket) {}

  bool done() const { return send.done() && receive.done(); }

  int peer;
  Socket* socket;
  Flow send{Direction::kSend}, receive{Direction::kReceive};
  Header sent{}, received{};
};

}  // namespace scmoe
