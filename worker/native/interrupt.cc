#include "interrupt.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>
#include <utility>

#include "error.h"

namespace scmoe {

Interrupt::Interrupt() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

void Interrupt::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

void Interrupt::ring() {
  const uint64_t one = 1;
  // The write fails only if the counter is full, and then the descriptor is readable already.
  [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof one);
}

void Interrupt::raise() {
  raised_.store(true);
  ring();
}

void Interrupt::check() const {
  if (raised()) throw Error(kAborted, "aborted");
}

void Interrupt::drain() {
  uint64_t count;
  [[maybe_unused]] const ssize_t got = read(fd_, &count, sizeof count);
}

}  // namespace scmoe
