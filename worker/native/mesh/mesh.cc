#include "mesh/mesh.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <list>
#include <mutex>
#include <thread>

#include "error.h"

namespace scmoe {
namespace {

using std::chrono::milliseconds;

constexpr uint32_t kMagic = 0x6f4d6353;  // "ScMo"
constexpr uint32_t kProtocol = 1;
constexpr milliseconds kGreeting{3000};  // allowed to one connection for its greeting
constexpr milliseconds kRetry{100};
constexpr size_t kMaxStrangers = 256;  // open connections without a complete greeting

// The first message on a connection. The dialling rank sends it, the listening rank answers with
// its own, and the dialling rank confirms with one byte. Without that byte a listener could keep a
// connection that the dialling rank has given up.
struct Greeting {
  uint32_t magic;
  uint32_t protocol;
  uint32_t rank;
  uint32_t world_size;
  TokenDigest token;
};

class MeshBuilder {
 public:
  MeshBuilder(const MeshOptions& options, const Socket& listener, Interrupt& interrupt)
      : options_(options), listener_(listener), interrupt_(interrupt), sockets_(options.topology.world_size) {}

  std::vector<Socket> build() {
    std::thread dialler([this] { dial_lower_ranks(); });
    try {
      accept_higher_ranks();
    } catch (...) {
      stop_ = true;
      dialler.join();
      throw;
    }
    dialler.join();
    for (int rank = 0; rank < world_size(); ++rank) {
      if (rank == this_rank() || sockets_[rank]) continue;
      interrupt_.check();
      throw missing(rank);
    }
    return std::move(sockets_);
  }

 private:
  struct Stranger {
    Socket socket;
    Clock::time_point deadline;
    Greeting greeting{};
    size_t received = 0;
    bool greeted = false;  // both greetings were sent; only the confirming byte is missing
  };

  int this_rank() const { return options_.topology.rank; }
  int world_size() const { return options_.topology.world_size; }
  bool expired() const { return stop_ || interrupt_.raised() || Clock::now() >= deadline_; }

  Greeting own_greeting() const {
    return {kMagic, kProtocol, uint32_t(this_rank()), uint32_t(world_size()), options_.token};
  }

  // Whether the greeting comes from the same job and attempt. The caller checks the rank.
  bool trusted(const Greeting& greeting) const {
    Greeting expected = own_greeting();
    expected.rank = greeting.rank;
    return std::memcmp(&greeting, &expected, sizeof greeting) == 0;
  }

  Error missing(int rank) const {
    const PeerAddress& peer = options_.peers[rank];
    std::string message = "rank " + std::to_string(rank) + " (" + peer.host + ":" + std::to_string(peer.port) + ") ";
    message += rank < this_rank() ? "did not answer" : "did not connect";
    message += " within " + std::to_string(options_.timeout.count()) + " ms";
    if (rank < this_rank() && !reason_.empty()) message += "; last try: " + reason_;
    return Error(kPeerTimeout, message, rank);
  }

  // Runs on a thread of its own because resolving a name blocks. The thread writes sockets_ of
  // lower ranks only; reason_ belongs to it until it is joined.
  void dial_lower_ranks() {
    for (int rank = 0; rank < this_rank() && !expired();) {
      if (dial_rank(rank)) {
        ++rank;
      } else {
        std::this_thread::sleep_for(kRetry);
      }
    }
    dialled_ = true;
    interrupt_.ring();
  }

  bool dial_rank(int rank) {
    const PeerAddress& peer = options_.peers[rank];
    const auto deadline = std::min(deadline_, Clock::now() + kGreeting);
    Socket socket = dial(peer.host, peer.port, milliseconds(milliseconds_until(deadline)), &reason_);
    if (!socket) return false;
    const Greeting mine = own_greeting();
    if (send_some(socket.fd(), &mine, sizeof mine) != sizeof mine) return false;
    Greeting theirs{};
    for (size_t received = 0; received < sizeof theirs;) {
      reason_ = "the connection was accepted, but the greeting was not answered";
      if (expired() || !wait_for(socket, POLLIN, std::min(deadline, Clock::now() + kRetry))) {
        if (expired() || Clock::now() >= deadline) return false;
        continue;
      }
      const int64_t got =
          receive_some(socket.fd(), reinterpret_cast<char*>(&theirs) + received, sizeof theirs - received);
      if (got < 0) {
        reason_ = "it closed the connection; its token or world size may differ, as those of an older attempt do";
        return false;
      }
      received += got;
    }
    reason_ = "another rank or job answered at this address";
    if (!trusted(theirs) || theirs.rank != uint32_t(rank)) return false;
    if (send_some(socket.fd(), "!", 1) != 1) return false;
    sockets_[rank] = std::move(socket);
    return true;
  }

  bool all_accepted() const {
    return std::all_of(sockets_.begin() + this_rank() + 1, sockets_.end(), [](const Socket& s) { return bool(s); });
  }

  void accept_higher_ranks() {
    std::list<Stranger> strangers;
    while (!(all_accepted() && dialled_) && !expired()) {
      std::vector<pollfd> polled = {{interrupt_.fd(), POLLIN, 0}};
      if (listener_) polled.push_back({listener_.fd(), POLLIN, 0});
      for (const Stranger& stranger : strangers) polled.push_back({stranger.socket.fd(), POLLIN, 0});
      poll(polled.data(), polled.size(), milliseconds_until(deadline_, int(kRetry.count())));
      if (polled[0].revents != 0) interrupt_.drain();
      strangers.remove_if([this](Stranger& stranger) { return !welcome(stranger); });
      while (listener_) {
        Socket socket = accept_from(listener_);
        if (!socket) break;
        // The oldest goes, because it has had the most time.
        if (strangers.size() == kMaxStrangers) strangers.pop_front();
        strangers.push_back({std::move(socket), Clock::now() + kGreeting});
      }
    }
    if (!all_accepted()) stop_ = true;
  }

  // Reads from one connection. Returns false when the list must forget it: it was closed, refused
  // or has become a peer's socket.
  bool welcome(Stranger& stranger) {
    char* const into = stranger.greeted ? &ready_ : reinterpret_cast<char*>(&stranger.greeting) + stranger.received;
    const size_t wanted = stranger.greeted ? 1 : sizeof(Greeting) - stranger.received;
    const int64_t got = receive_some(stranger.socket.fd(), into, wanted);
    if (got < 0) return false;
    if (got == 0) return Clock::now() < stranger.deadline;
    const uint32_t rank = stranger.greeting.rank;
    if (stranger.greeted) {
      sockets_[rank] = std::move(stranger.socket);
      return false;
    }
    stranger.received += got;
    if (stranger.received >= sizeof kMagic && stranger.greeting.magic != kMagic) return false;
    if (stranger.received < sizeof(Greeting)) return true;
    if (!trusted(stranger.greeting) || rank <= uint32_t(this_rank()) || rank >= uint32_t(world_size())) return false;
    const Greeting mine = own_greeting();
    stranger.greeted = true;
    return send_some(stranger.socket.fd(), &mine, sizeof mine) == sizeof mine;
  }

  const MeshOptions& options_;
  const Socket& listener_;
  Interrupt& interrupt_;
  const Clock::time_point deadline_ = Clock::now() + options_.timeout;
  std::vector<Socket> sockets_;  // the two threads write different elements
  std::atomic<bool> stop_{false};
  std::atomic<bool> dialled_{false};
  std::string reason_;
  char ready_ = 0;
};

}  // namespace

std::vector<Socket> connect_mesh(const MeshOptions& options, const Socket& listener, Interrupt& interrupt) {
  if (options.topology.world_size == 1) return std::vector<Socket>(1);
  return MeshBuilder(options, listener, interrupt).build();
}

}  // namespace scmoe
