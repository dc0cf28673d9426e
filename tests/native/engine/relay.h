// A link that is slower than loopback. It forwards one connection in pieces of the size of a
// network packet, with a pause after each.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

#include "mesh/socket.h"

namespace scmoe::test {

class Relay {
 public:
  static constexpr int64_t kPiece = 1448;  // bytes of data in an Ethernet frame

  // Forwards to the port `target` of this machine, at about kPiece / pause in each direction.
  Relay(int target, std::chrono::microseconds pause);
  ~Relay();

  int port() const { return local_port(listener_); }

 private:
  void forward(const Socket& from, const Socket& to);
  void serve();

  const int target_;
  const std::chrono::microseconds pause_;
  const Socket listener_ = listen_on(0);
  std::atomic<bool> ending_{false};
  std::thread thread_{[this] { serve(); }};
};

}  // namespace scmoe::test
