#include "mesh/socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "error.h"

namespace scmoe {
namespace {

constexpr int kBacklog = 4096;           // connections; strangers leave room for peers
constexpr int kReceiveBuffer = 4 << 20;  // bytes; more than 40 Gbit/s bring while a reader wakes
constexpr int kSendBuffer = 416 << 10;   // bytes; the most that every kernel grants

int option(int fd, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  getsockopt(fd, SOL_SOCKET, name, &value, &size);
  return value;
}

// Without this option small headers wait for acknowledgements.
void set_no_delay(int fd) {
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

// Returns a listening descriptor, or -1 with errno.
int try_listen(int family, const sockaddr* address, socklen_t size) {
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const int one = 1, zero = 0;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  if (bind(fd, address, size) == 0 && ::listen(fd, kBacklog) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

}  // namespace

int milliseconds_until(Clock::time_point deadline, int most) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return int(std::clamp<int64_t>(left, 0, most));
}

void Socket::reset() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

// The kernel grows the buffers of a connection up to tcp_rmem and tcp_wmem, but it starts small and
// grows them only as fast as data is read. SO_RCVBUF and SO_SNDBUF end that growth and grant no
// more than net.core.rmem_max, by default 208 KiB. So neither option stays set. For receiving, a
// low-water mark makes room for twice its value and pins nothing. For sending, SO_BUF_LOCK returns
// the enlarged buffer to the kernel's control (Linux 5.14; an older kernel's buffer is left alone).
// A small send buffer costs no bandwidth, because it grows with the congestion window, but the
// kernel wakes the sender each time a third of the buffer is free.
void Socket::grow_buffers() {
  set_receive_low_water(kReceiveBuffer / 2);
  set_receive_low_water(1);
#ifdef SO_BUF_LOCK
  const int none = 0, half = kSendBuffer / 2;  // the kernel doubles the value for its bookkeeping
  const bool can_unlock = setsockopt(fd_, SOL_SOCKET, SO_BUF_LOCK, &none, sizeof none) == 0;
  if (!can_unlock || option(fd_, SO_SNDBUF) >= kSendBuffer) return;
  setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &half, sizeof half);
  setsockopt(fd_, SOL_SOCKET, SO_BUF_LOCK, &none, sizeof none);
#endif
}

void Socket::set_receive_low_water(int bytes) {
  setsockopt(fd_, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
  low_water_ = bytes;
}

Socket listen_on(int port) {
  sockaddr_in6 any6{};
  any6.sin6_family = AF_INET6;
  any6.sin6_port = htons(uint16_t(port));
  int fd = try_listen(AF_INET6, reinterpret_cast<sockaddr*>(&any6), sizeof any6);
  if (fd < 0 && errno != EADDRINUSE && errno != EACCES) {  // this machine has no IPv6
    sockaddr_in any4{};
    any4.sin_family = AF_INET;
    any4.sin_port = htons(uint16_t(port));
    fd = try_listen(AF_INET, reinterpret_cast<sockaddr*>(&any4), sizeof any4);
  }
  if (fd < 0) throw Error(kListenFailed, "cannot listen on port " + std::to_string(port) + ": " + std::strerror(errno));
  return Socket(fd);
}

int local_port(const Socket& socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

Socket accept_from(const Socket& listener) {
  const int fd = accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) set_no_delay(fd);
  return Socket(fd);
}

Socket dial(const std::string& host, int port, std::chrono::milliseconds patience, std::string* reason) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); error != 0) {
    *reason = gai_strerror(error);
    return {};
  }
  Socket connected;
  for (const addrinfo* address = found; address != nullptr && !connected; address = address->ai_next) {
    Socket socket(::socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket) continue;
    set_no_delay(socket.fd());
    int error = connect(socket.fd(), address->ai_addr, address->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      error = ETIMEDOUT;
      socklen_t size = sizeof error;
      if (wait_for(socket, POLLOUT, Clock::now() + patience)) {
        getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &size);
      }
    }
    *reason = std::strerror(error);
    if (error == 0) connected = std::move(socket);
  }
  freeaddrinfo(found);
  return connected;
}

bool wait_for(const Socket& socket, short events, Clock::time_point deadline) {
  for (;;) {
    pollfd poll_fd{socket.fd(), events, 0};
    const int ready = poll(&poll_fd, 1, milliseconds_until(deadline));
    if (ready > 0) return true;
    if (ready == 0 && Clock::now() >= deadline) return false;
  }
}

int64_t send_some(int fd, const void* data, size_t bytes) {
  const ssize_t sent = send(fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) return sent;
  return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

int64_t receive_some(int fd, void* data, size_t bytes) {
  const ssize_t received = recv(fd, data, bytes, MSG_DONTWAIT);
  if (received > 0) return received;
  if (received == 0) errno = ECONNRESET;
  return received < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

}  // namespace scmoe
