#include "mesh/exchange.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <string>
#include <utility>

#include "error.h"

namespace scmoe {
namespace {

constexpr std::chrono::milliseconds kRollCall{1000};
constexpr size_t kMaxVectors = IOV_MAX;  // many experts on many ranks make many small segments
constexpr size_t kMaxBytes = 1 << 20;    // per call, so that a large message delays no other peer

// The receive low-water mark: the kernel wakes a receiver for this many bytes at a time. Without
// it, each segment of a slow link wakes the receiver: 25,000 times a second at 300 Mbit/s, which
// takes a third of a processor from computation. A quarter of this value still took 1 % more from
// computation; a larger value leaves too much to copy at the end of a fast link's transfer.
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

void Exchange::begin() {
  ready_ = Clock::now();
  deadline_ = ready_ + options_.timeout;
  for (Lane& lane : lanes_) {
    lane.sent = options_.header;
    lane.sent.bytes = lane.send.total();
    lane.send.set_header(lane.sent);
    lane.receive.set_header(lane.received);
  }
}

void Exchange::run() {
  begin();
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
  return std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return lane.done(); });
}

// Whether nothing can move before poll(2) reports something.
bool Exchange::stuck() const {
  return std::none_of(lanes_.begin(), lanes_.end(),
                      [](const Lane& lane) { return lane.send.movable() || lane.receive.movable(); });
}

// Receives from everyone before it sends, so that the time spent on sending does not count as
// waiting for a peer.
bool Exchange::move() {
  bool moved = false;
  for (Lane& lane : lanes_) {
    // A limit may have been raised past segments that are empty: progress without a byte.
    moved = lane.send.settle() || moved;
    moved = lane.receive.settle() || moved;
    if (lane.receive.movable()) moved = move_some(lane, lane.receive) || moved;
  }
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[(options_.first_lane + i) % lanes_.size()];
    if (lane.send.movable()) moved = move_some(lane, lane.send) || moved;
  }
  return moved;
}

bool Exchange::move_some(Lane& lane, Flow& flow) {
  const bool sending = flow.direction() == Direction::kSend;
  iovec vectors[kMaxVectors];
  const Flow::Batch batch = flow.next_batch(vectors, kMaxVectors, kMaxBytes);
  msghdr message{};
  message.msg_iov = vectors;
  message.msg_iovlen = batch.vectors;
  const int fd = lane.socket->fd();
  const ssize_t moved =
      sending ? sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) : recvmsg(fd, &message, MSG_DONTWAIT);
  ++traffic_.calls;
  flow.set_blocked(moved < 0 ? errno == EAGAIN : size_t(moved) < batch.bytes);
  if (moved < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (moved < 0) throw lost(lane.peer, errno);
  if (moved == 0) throw lost(lane.peer, ECONNRESET);
  const bool in_header = !sending && flow.finished() == 0;
  flow.consume(size_t(moved));
  (sending ? traffic_.bytes_sent : traffic_.bytes_received) += size_t(moved);
  if (in_header && flow.finished() > 0) {
    check_header(lane);
    if (++num_headers_ == lanes_.size()) ready_ = Clock::now();
  }
  return true;
}

void Exchange::check_header(const Lane& lane) const {
  const Header& got = lane.received;
  const Header& expected = lane.sent;
  const auto require_equal = [&](const char* field, uint64_t theirs, uint64_t ours) {
    if (theirs == ours) return;
    const auto name = [](uint64_t value) { return value == kControl ? std::string("none") : std::to_string(value); };
    throw Error(kBadPeer,
                rank_name(lane.peer) + " is elsewhere in the program: " + field + " is " + name(theirs) +
                    ", expected " + name(ours) + "; run the same programs in the same order on all ranks",
                lane.peer);
  };
  require_equal("collective number", got.sequence, expected.sequence);
  require_equal("op index", got.op, expected.op);
  require_equal("fingerprint of program and label", got.fingerprint, expected.fingerprint);
  require_equal("byte count", got.bytes, lane.receive.total());
}

// Changes the mark only when the current one is too high or less than half of the wanted one,
// which saves most of the system calls.
void Exchange::set_low_water(const Lane& lane) {
  const size_t certain = lane.receive.certain_bytes(kLowWater);
  const int wanted = int(std::clamp(certain, size_t{1}, kLowWater)), set = lane.socket->receive_low_water();
  if (wanted < set || wanted >= 2 * set) lane.socket->set_receive_low_water(wanted);
}

void Exchange::wait() {
  std::vector<pollfd> polled = {{interrupt_.fd(), POLLIN, 0}};
  for (const Lane& lane : lanes_) {
    if (lane.receive.open()) set_low_water(lane);
    const int events = (lane.receive.open() ? POLLIN : 0) | (lane.send.open() ? POLLOUT : 0);
    // A finished lane is left out: a peer that has closed its connection after its last byte would
    // make every poll return at once.
    polled.push_back({lane.done() ? -1 : lane.socket->fd(), short(events), 0});
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
    // Nothing reads or writes a lane that is held back, so its error must be noticed here.
    if (broken && !receive.open() && !send.open()) throw lost(lanes_[i].peer, ECONNRESET);
    if (broken || (events & POLLIN) != 0) receive.set_blocked(false);
    if (broken || (events & POLLOUT) != 0) send.set_blocked(false);
  }
}

// The peer to blame for a timeout. The ranks that this rank waits for may themselves be waiting
// for another one. Closing our half of each connection makes the live ones fail and hang up; the
// rank to blame is one that does not.
int Exchange::silent_peer() const {
  std::vector<const Lane*> waited_for;
  for (const Lane& lane : lanes_) {
    if (!lane.done()) waited_for.push_back(&lane);
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
      if (polled[i].revents != 0) silent.erase(silent.begin() + std::ptrdiff_t(i));
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
