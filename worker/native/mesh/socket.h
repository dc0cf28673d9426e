// Non-blocking TCP sockets and time, as the mesh and the exchange need them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

namespace scmoe {

using Clock = std::chrono::steady_clock;

// Milliseconds until `deadline`, rounded up, at most `most`, never negative; what poll(2) wants.
int milliseconds_until(Clock::time_point deadline, int most = 1 << 30);

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() { reset(); }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)), low_water_(other.low_water_) {}
  Socket& operator=(Socket&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
      low_water_ = other.low_water_;
    }
    return *this;
  }

  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset();

  // Room in the kernel for megabytes each way. For connections whose other end is trusted.
  void grow_buffers();

  // poll(2) reports data once this many bytes have come; the end of the stream and errors at once. It must not be more
  // than the peer will send. Reading is not affected.
  void set_receive_low_water(int bytes);
  int receive_low_water() const { return low_water_; }

 private:
  int fd_ = -1;
  int low_water_ = 1;
};

// Listens on all interfaces, IPv6 and IPv4; port 0 = any free. Throws LISTEN_FAILED with the port.
Socket listen_on(int port);
int local_port(const Socket& socket);

// The next waiting connection, or none.
Socket accept_from(const Socket& listener);

// Resolves and connects, each address for at most `patience`; none and a reason if nobody answers.
Socket dial(const std::string& host, int port, std::chrono::milliseconds patience, std::string* reason);

// Waits for `events` on one socket; false when the deadline passes first.
bool wait_for(const Socket& socket, short events, Clock::time_point deadline);

// One call each, never blocking, never raising SIGPIPE. Bytes moved; 0 when it would block; -1 with errno when the
// connection is gone (receive: ECONNRESET also at the orderly end).
int64_t send_some(int fd, const void* data, size_t bytes);
int64_t receive_some(int fd, void* data, size_t bytes);

}  // namespace scmoe
