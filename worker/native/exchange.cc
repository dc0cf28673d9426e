#include "exchange.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "error.h"

namespace scmoe {
namespace {

constexpr std::chrono::milliseconds kRollCall{1000};
constexpr size_t kMaxVectors = 64;
constexpr size_t kMaxBytes = 1 << 20;  // per call, so that no peer waits for another's large message

std::string rank_name(int rank) {
  return "rank " + std::to_string(rank);
}

Error lost(int peer, int error) {
  return Error(kPeerLost, rank_name(peer) + " closed its connection (" + std::strerror(error) + ")", peer);
}

}  // namespace

bool Flow::settle() {
  const size_t before = next_;
  while (open() && segments_[next_].iov_len == 0) ++next_;
  return next_ != before;
}

void Flow::consume(size_t bytes) {
  while (bytes > 0) {
    iovec& segment = segments_[next_];
    const size_t part = std::min(bytes, segment.iov_len);
    segment.iov_base = static_cast<char*>(segment.iov_base) + part;
    segment.iov_len -= part;
    bytes -= part;
    if (segment.iov_len == 0) ++next_;
  }
  settle();
}

uint64_t Exchange::run() {
  deadline_ = Clock::now() + options_.timeout;
  for (Lane& lane : lanes_) {
    lane.sent = options_.header;
    lane.sent.bytes = lane.send.total();
    lane.send.segments_[0] = {&lane.sent, sizeof(Header)};
    lane.receive.segments_[0] = {&lane.received, sizeof(Header)};
  }
  while (!finished()) {
    interrupt_.check();
    bool moved = false;
    for (Lane& lane : lanes_) moved = move(lane) || moved;
    if (moved && options_.advance) options_.advance();
    if (!moved) wait();
  }
  return bytes_sent_;
}

bool Exchange::finished() const {
  return std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& l) { return l.send.done() && l.receive.done(); });
}

bool Exchange::move(Lane& lane) {
  // Limits may have been raised past segments that are empty: progress without a byte.
  bool moved = lane.send.settle();
  moved = lane.receive.settle() || moved;
  if (lane.receive.open()) moved = move_some(lane, lane.receive, false) || moved;
  if (lane.send.open()) moved = move_some(lane, lane.send, true) || moved;
  return moved;
}

bool Exchange::move_some(Lane& lane, Flow& flow, bool sending) {
  // Nothing is received past a header until it has been judged.
  const size_t limit = !sending && flow.next_ == 0 ? 1 : std::min(flow.limit_, flow.size());
  iovec vectors[kMaxVectors];
  msghdr message{};
  message.msg_iov = vectors;
  size_t bytes = 0;
  for (size_t i = flow.next_; i < limit && message.msg_iovlen < kMaxVectors && bytes < kMaxBytes; ++i) {
    iovec segment = flow.segments_[i];
    segment.iov_len = std::min(segment.iov_len, kMaxBytes - bytes);
    bytes += segment.iov_len;
    if (segment.iov_len > 0) vectors[message.msg_iovlen++] = segment;
  }
  const ssize_t moved =
      sending ? sendmsg(lane.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) : recvmsg(lane.fd, &message, MSG_DONTWAIT);
  if (moved < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (moved < 0) throw lost(lane.peer, errno);
  if (moved == 0) throw lost(lane.peer, ECONNRESET);
  const bool heading = !sending && flow.next_ == 0;
  flow.consume(moved);
  if (sending) bytes_sent_ += moved;
  if (heading && flow.next_ > 0) check_header(lane);
  return true;
}

void Exchange::check_header(const Lane& lane) const {
  const Header& got = lane.received;
  const Header& expected = lane.sent;
  const auto differs = [&](const char* field, uint64_t theirs, uint64_t ours) {
    if (theirs == ours) return;
    const auto name = [](uint64_t value) { return value == kControl ? std::string("none") : std::to_string(value); };
    throw Error(kBadPeer,
                rank_name(lane.peer) + " is not where this rank is: " + field + " expected " + name(ours) + ", got " +
                    name(theirs) + "; all ranks must run the same programs in the same order",
                lane.peer);
  };
  differs("collective number", got.sequence, expected.sequence);
  differs("op index", got.op, expected.op);
  differs("fingerprint of program and label", got.fingerprint, expected.fingerprint);
  differs("byte count", got.bytes, lane.receive.total());
}

void Exchange::wait() {
  std::vector<pollfd> polled = {{interrupt_.fd(), POLLIN, 0}};
  for (const Lane& lane : lanes_) {
    const int events = (lane.receive.open() ? POLLIN : 0) | (lane.send.open() ? POLLOUT : 0);
    // A lane with nothing to do is left out: a peer that is through and has closed would wake us for ever.
    polled.push_back({lane.send.done() && lane.receive.done() ? -1 : lane.fd, short(events), 0});
  }
  const int ready = poll(polled.data(), polled.size(), milliseconds_until(deadline_));
  if (ready == 0 && Clock::now() >= deadline_) time_out();
  if (ready <= 0) return;
  if (polled[0].revents != 0) interrupt_.drain();
  for (size_t i = 0; i < lanes_.size(); ++i) {
    // An error on a lane that is held back: nobody will read or write it, so it must be noticed here.
    const bool held_back = !lanes_[i].receive.open() && !lanes_[i].send.open();
    const bool broken = (polled[i + 1].revents & (POLLERR | POLLHUP)) != 0;
    if (held_back && broken) throw lost(lanes_[i].peer, ECONNRESET);
  }
}

// Ranks that are waited for may themselves be waiting for the one to blame. Asked by the end of our stream, those that
// live hang up as well: the rank to name is one that does not.
int Exchange::silent_peer() const {
  std::vector<const Lane*> waited_for;
  for (const Lane& lane : lanes_) {
    if (!lane.receive.done() || !lane.send.done()) waited_for.push_back(&lane);
  }
  if (waited_for.size() > 1) {
    for (const Lane* lane : waited_for) shutdown(lane->fd, SHUT_WR);
  }
  std::vector<const Lane*> silent = waited_for;
  const auto deadline = Clock::now() + kRollCall;
  while (silent.size() > 1 && Clock::now() < deadline) {
    std::vector<pollfd> polled;
    for (const Lane* lane : silent) polled.push_back({lane->fd, POLLRDHUP, 0});
    poll(polled.data(), polled.size(), milliseconds_until(deadline));
    for (size_t i = silent.size(); i-- > 0;) {
      if (polled[i].revents != 0) silent.erase(silent.begin() + i);
    }
  }
  return (silent.empty() ? waited_for : silent).front()->peer;
}

void Exchange::time_out() const {
  const int peer = silent_peer();
  throw Error(kPeerTimeout,
              rank_name(peer) + " did not answer within " + std::to_string(options_.timeout.count()) + " ms", peer);
}

}  // namespace scmoe
