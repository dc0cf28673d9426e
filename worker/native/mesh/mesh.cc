#include "mesh/mesh.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <list>
#include <optional>
#include <set>
#include <thread>

#include "error.h"

namespace scmoe {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPatience{3000};  // of the dialling rank, for the answer
constexpr milliseconds kSilence{1000};   // of the listening rank, for a proof
constexpr milliseconds kRetry{100};
constexpr size_t kMaxStrangers = 256;  // open connections that have proven nothing

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
  // A connection from somebody who has to prove to be a higher rank.
  struct Stranger {
    Socket socket;
    Clock::time_point deadline;
    Hello hello{};
    Confirmation confirmation{};
    size_t received = 0;
    std::optional<Handshake> proven{};  // the hello was right; only the confirmation is missing
  };

  int this_rank() const { return options_.topology.rank; }
  int world_size() const { return options_.topology.world_size; }
  bool expired() const { return stop_ || interrupt_.raised() || Clock::now() >= deadline_; }

  Handshake between(uint32_t dialler, uint32_t listener) const {
    return {options_.token, uint32_t(world_size()), dialler, listener};
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
    try {
      for (int rank = 0; rank < this_rank() && !expired();) {
        if (dial_rank(rank)) {
          ++rank;
        } else {
          std::this_thread::sleep_for(kRetry);
        }
      }
    } catch (const Error& error) {
      reason_ = error.what();
    }
    dialled_ = true;
    interrupt_.ring();
  }

  bool dial_rank(int rank) {
    const PeerAddress& peer = options_.peers[rank];
    const auto deadline = std::min(deadline_, Clock::now() + kPatience);
    Socket socket = dial(peer.host, peer.port, milliseconds(milliseconds_until(deadline)), &reason_);
    if (!socket) return false;
    Handshake handshake = between(uint32_t(this_rank()), uint32_t(rank));
    const Hello hello = handshake.hello();
    if (send_some(socket.fd(), &hello, sizeof hello) != sizeof hello) return false;
    Answer answer{};
    for (size_t received = 0; received < sizeof answer;) {
      reason_ = "the connection was accepted, but the greeting was not answered";
      if (expired() || !wait_for(socket, POLLIN, std::min(deadline, Clock::now() + kRetry))) {
        if (expired() || Clock::now() >= deadline) return false;
        continue;
      }
      const int64_t got =
          receive_some(socket.fd(), reinterpret_cast<char*>(&answer) + received, sizeof answer - received);
      if (got < 0) {
        reason_ = "it closed the connection; its token or world size may differ, as those of an older attempt do";
        return false;
      }
      received += size_t(got);
    }
    reason_ = "what answered at this address is not that rank of this attempt";
    if (!handshake.answers(answer)) return false;
    const Confirmation confirmation = handshake.confirmation();
    if (send_some(socket.fd(), &confirmation, sizeof confirmation) != sizeof confirmation) return false;
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
        strangers.push_back({std::move(socket), Clock::now() + kSilence});
        // A peer's hello has mostly come before its connection is accepted. Read at once, it keeps
        // its place however many others wait in the same queue.
        if (!welcome(strangers.back())) strangers.pop_back();
        make_room(strangers);
      }
    }
    if (!all_accepted()) stop_ = true;
  }

  // The oldest goes that has proven nothing, because it has had the most time.
  static void make_room(std::list<Stranger>& strangers) {
    const auto unproven = [](const Stranger& stranger) { return !stranger.proven; };
    if (size_t(std::count_if(strangers.begin(), strangers.end(), unproven)) <= kMaxStrangers) return;
    strangers.erase(std::find_if(strangers.begin(), strangers.end(), unproven));
  }

  // Reads from one connection. Returns false when the list must forget it: it was closed, refused
  // or has become a peer's socket.
  bool welcome(Stranger& stranger) {
    char* const message =
        reinterpret_cast<char*>(stranger.proven ? static_cast<void*>(&stranger.confirmation) : &stranger.hello);
    const size_t size = stranger.proven ? sizeof(Confirmation) : sizeof(Hello);
    const int64_t got = receive_some(stranger.socket.fd(), message + stranger.received, size - stranger.received);
    if (got < 0) return false;
    if (got == 0) return Clock::now() < stranger.deadline;
    stranger.received += size_t(got);
    if (stranger.proven) {
      if (stranger.received < size) return true;
      if (stranger.proven->confirms(stranger.confirmation)) sockets_[stranger.hello.rank] = std::move(stranger.socket);
      return false;
    }
    if (stranger.received >= sizeof stranger.hello.magic && !is_magic(stranger.hello.magic)) return false;
    return stranger.received < size || answer(stranger);
  }

  // Judges a whole hello. Only one that proves to come from a higher rank is answered, and only
  // once.
  bool answer(Stranger& stranger) {
    const Hello& hello = stranger.hello;
    if (hello.rank <= uint32_t(this_rank()) || hello.rank >= uint32_t(world_size())) return false;
    Handshake handshake = between(hello.rank, uint32_t(this_rank()));
    if (!handshake.proves(hello) || !nonces_.insert(hello.nonce).second) return false;
    const Answer answer = handshake.answer();
    stranger.proven = handshake;
    stranger.received = 0;
    stranger.deadline = Clock::now() + kPatience;
    return send_some(stranger.socket.fd(), &answer, sizeof answer) == sizeof answer;
  }

  const MeshOptions& options_;
  const Socket& listener_;
  Interrupt& interrupt_;
  const Clock::time_point deadline_ = Clock::now() + options_.timeout;
  std::vector<Socket> sockets_;  // the two threads write different elements
  std::atomic<bool> stop_{false};
  std::atomic<bool> dialled_{false};
  std::string reason_;
  std::set<Nonce> nonces_;  // of every hello that was answered
};

}  // namespace

std::vector<Socket> connect_mesh(const MeshOptions& options, const Socket& listener, Interrupt& interrupt) {
  if (options.topology.world_size == 1) return std::vector<Socket>(1);
  return MeshBuilder(options, listener, interrupt).build();
}

}  // namespace scmoe
