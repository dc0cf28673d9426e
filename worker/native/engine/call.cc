#include "engine/call.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace scmoe {

void PendingCall::check_alive() const {
  const std::lock_guard lock(mutex_);
  if (failure_) throw *failure_;
}

void PendingCall::check_idle(const char* call) const {
  const std::lock_guard lock(mutex_);
  if (done_) throw std::logic_error(std::string(call) + ": another call is pending; wait for its end");
}

void PendingCall::begin(Done done) {
  const std::lock_guard lock(mutex_);
  if (failure_) throw *failure_;
  if (done_) throw std::logic_error("another call is pending; wait for its end, the engine does one at a time");
  done_ = std::move(done);
}

void PendingCall::finish() {
  Done done;
  {
    const std::lock_guard lock(mutex_);
    std::swap(done, done_);
  }
  if (done) done(nullptr);
}

Done PendingCall::fail(const Error& error) {
  Done done;
  const std::lock_guard lock(mutex_);
  if (!done_) return done;
  std::swap(done, done_);
  failure_ = error;
  return done;
}

}  // namespace scmoe
