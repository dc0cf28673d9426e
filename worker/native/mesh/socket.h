// Non-blocking TCP sockets and deadlines for the mesh and the exchange.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

namespace scmoe {

using Clock = std::chrono::steady_clock;

// Milliseconds until `deadline` for poll(2): rounded up, at least 0, at most `most`.
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

  // Makes room in the kernel for megabytes each way. Only for connections to a trusted peer.
  void grow_buffers();

  // From now on poll(2) reports data only when this many bytes have arrived; the end of the stream
  // and errors are reported at once. The value must not exceed what the peer will send. Reading is
  // not affected.
  void set_receive_low_water(int bytes);
  int receive_low_water() const { return low_water_; }

 private:
  int fd_ = -1;
  int low_water_ = 1;
};

// Listens on all interfaces, IPv6 and IPv4; port 0 stands for any free port. Throws LISTEN_FAILED
// with the port.
Socket listen_on(int port);
int local_port(const Socket& socket);

// The next waiting connection, or an empty socket.
Socket accept_from(const Socket& listener);

// Resolves the name and tries each address for at most `patience`. Returns an empty socket and
// fills in `reason` if no address answers.
Socket dial(const std::string& host, int port, std::chrono::milliseconds patience, std::string* reason);

// Waits for `events` of poll(2) on one socket. Returns false when the deadline passes first.
bool wait_for(const Socket& socket, short events, Clock::time_point deadline);

// One system call each, which neither blocks nor raises SIGPIPE. Returns the bytes moved; 0 when
// the call would block; -1 with errno when the connection is gone (ECONNRESET also when the peer
// closed it in an orderly way).
int64_t send_some(int fd, const void* data, size_t bytes);
int64_t receive_some(int fd, void* data, size_t bytes);

}  // namespace scmoe
