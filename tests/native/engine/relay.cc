#include "relay.h"

#include <poll.h>

namespace scmoe::test {
namespace {

constexpr std::chrono::milliseconds kGlance{20};  // after which an idle relay checks `ending_`

}  // namespace

Relay::Relay(int target, std::chrono::microseconds pause) : target_(target), pause_(pause) {}

Relay::~Relay() {
  ending_ = true;
  thread_.join();
}

void Relay::serve() {
  while (!ending_) {
    if (!wait_for(listener_, POLLIN, Clock::now() + kGlance)) continue;
    const Socket near = accept_from(listener_);
    std::string reason;
    const Socket far = dial("localhost", target_, std::chrono::seconds(10), &reason);
    std::thread back([&] { forward(far, near); });
    forward(near, far);
    back.join();
    return;
  }
}

void Relay::forward(const Socket& from, const Socket& to) {
  char piece[kPiece];
  while (!ending_) {
    if (!wait_for(from, POLLIN, Clock::now() + kGlance)) continue;
    const int64_t got = receive_some(from.fd(), piece, sizeof piece);
    if (got < 0) return;
    for (int64_t sent = 0; sent < got && !ending_;) {
      const int64_t part = send_some(to.fd(), piece + sent, got - sent);
      if (part < 0) return;
      sent += part;
      if (sent < got) wait_for(to, POLLOUT, Clock::now() + kGlance);
    }
    std::this_thread::sleep_for(pause_);
  }
}

}  // namespace scmoe::test
