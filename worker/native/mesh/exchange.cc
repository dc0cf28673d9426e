#include "mesh/exchange.h"

#include <sys/socket.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "error.h"

namespace scmoe {
namespace {

constexpr std::chrono::milliseconds kRollCall{1000};
constexpr size_t kMaxVectors = IOV_MAX;  // many experts on many ranks make small segments
constexpr size_t kMaxBytes = 1 << 20;    // per call, so that no peer waits for another's large message

// A receiver is woken for this many bytes at a time. Without it, each segment of a slow link wakes it: at 300 Mbit/s
// 25,000 times a second, a third of a processor taken from computation. A quarter of it still took 1 % more from
// computation than this; more leaves too much to copy at the end of a fast link's transfer.
constexpr size_t kLowWater = 512 << 10;

std::string rank_name(int rank) {
  return "rank " + std::to_string(rank);
}

Error lost(int peer, int error) {
  return Error(kPeerLost, rank_name(peer) + " closed its connection (" + std::strerror(error) + ")", peer);
}

}  // namespace

Traffic& Traffic::operator+=(const Traffic& other) {
  bytes_sent += other.bytes_sent, bytes_received += other.bytes_received;
  calls += other.calls, wake_ups += other.wake_ups;
  return *this;
}

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

void Exchange::run() {
  ready_ = Clock::now();
  deadline_ = ready_ + options_.timeout;
  for (Lane& lane : lanes_) {
    lane.sent = options_.header;
    lane.sent.bytes = lane.send.total();
    lane.send.segments_[0] = {&lane.sent, sizeof(Header)};
    lane.receive.segments_[0] = {&lane.received, sizeof(Header)};
  }
  for (;;) {
    interrupt_.check();
    const bool moved = move();
    if (moved && options_.advance) options_.advance();
    if (!finished() && !stuck()) continue;
    if (options_.meanwhile) {
      std::exchange(options_.meanwhile, {})();
    } else if (finished()) {
      return;
    } else {
      wait();
    }
  }
}

bool Exchange::finished() const {
  return std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& l) { return l.send.done() && l.receive.done(); });
}

// Nothing can move before the kernel says so.
bool Exchange::stuck() const {
  return std::none_of(lanes_.begin(), lanes_.end(),
                      [](const Lane& l) { return l.send.movable() || l.receive.movable(); });
}

// First everything that has come, so that what is sent meanwhile does not hide when it came.
bool Exchange::move() {
  bool moved = false;
  for (Lane& lane : lanes_) {
    // Limits may have been raised past segments that are empty: progress without a byte.
    moved = lane.send.settle() || moved;
    moved = lane.receive.settle() || moved;
    if (lane.receive.movable()) moved = move_some(lane, lane.receive, false) || moved;
  }
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[(options_.first_lane + i) % lanes_.size()];
    if (lane.send.movable()) moved = move_some(lane, lane.send, true) || moved;
  }
  return moved;
}

bool Exchange::move_some(Lane& lane, Flow& flow, bool sending) {
  iovec vectors[kMaxVectors];
  msghdr message{};
  message.msg_iov = vectors;
  size_t bytes = 0;
  const size_t end = flow.end(sending);
  for (size_t i = flow.next_; i < end && message.msg_iovlen < kMaxVectors && bytes < kMaxBytes; ++i) {
    iovec segment = flow.segments_[i];
    segment.iov_len = std::min(segment.iov_len, kMaxBytes - bytes);
    bytes += segment.iov_len;
    if (segment.iov_len > 0) vectors[message.msg_iovlen++] = segment;
  }
  const int fd = lane.socket->fd();
  const ssize_t moved =
      sending ? sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) : recvmsg(fd, &message, MSG_DONTWAIT);
  ++traffic_.calls;
  flow.blocked_ = moved < 0 ? errno == EAGAIN : size_t(moved) < bytes;
  if (moved < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (moved < 0) throw lost(lane.peer, errno);
  if (moved == 0) throw lost(lane.peer, ECONNRESET);
  const bool heading = !sending && flow.next_ == 0;
  flow.consume(moved);
  (sending ? traffic_.bytes_sent : traffic_.bytes_received) += moved;
  if (heading && flow.next_ > 0) {
    check_header(lane);
    if (++headers_ == lanes_.size()) ready_ = Clock::now();
  }
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

// Half of what could be waited for is good enough to save the call.
void Exchange::set_low_water(const Lane& lane) {
  const Flow& flow = lane.receive;
  const size_t end = std::min(flow.end(false), flow.certain_);
  size_t coming = 0;
  for (size_t i = flow.next_; i < end && coming < kLowWater; ++i) coming += flow.segments_[i].iov_len;
  const int wanted = int(std::clamp(coming, size_t{1}, kLowWater)), set = lane.socket->receive_low_water();
  if (wanted < set || wanted >= 2 * set) lane.socket->set_receive_low_water(wanted);
}

void Exchange::wait() {
  std::vector<pollfd> polled = {{interrupt_.fd(), POLLIN, 0}};
  for (const Lane& lane : lanes_) {
    if (lane.receive.open()) set_low_water(lane);
    const int events = (lane.receive.open() ? POLLIN : 0) | (lane.send.open() ? POLLOUT : 0);
    // A lane with nothing to do is left out: a peer that is through and has closed would wake us for ever.
    polled.push_back({lane.send.done() && lane.receive.done() ? -1 : lane.socket->fd(), short(events), 0});
  }
  const int ready = poll(polled.data(), polled.size(), milliseconds_until(deadline_));
  ++traffic_.wake_ups;
  if (ready == 0 && Clock::now() >= deadline_) time_out();
  if (ready > 0) wake(polled);
}

void Exchange::wake(const std::vector<pollfd>& polled) {
  if (polled[0].revents != 0) interrupt_.drain();
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Flow &receive = lanes_[i].receive, &send = lanes_[i].send;
    const int events = polled[i + 1].revents;
    const bool broken = (events & (POLLERR | POLLHUP)) != 0;
    // An error on a lane that is held back: nobody will read or write it, so it must be noticed here.
    if (broken && !receive.open() && !send.open()) throw lost(lanes_[i].peer, ECONNRESET);
    if (broken || (events & POLLIN) != 0) receive.blocked_ = false;
    if (broken || (events & POLLOUT) != 0) send.blocked_ = false;
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
    for (const Lane* lane : waited_for) shutdown(lane->socket->fd(), SHUT_WR);
  }
  std::vector<const Lane*> silent = waited_for;
  const auto deadline = Clock::now() + kRollCall;
  while (silent.size() > 1 && Clock::now() < deadline) {
    std::vector<pollfd> polled;
    for (const Lane* lane : silent) polled.push_back({lane->socket->fd(), POLLRDHUP, 0});
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
