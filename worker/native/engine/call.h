// The engine's one call that may be pending, and the error that ended the engine.
#pragma once

#include <functional>
#include <mutex>
#include <optional>

#include "error.h"

namespace scmoe {

// Called once, on any thread, when a call has ended; nullptr stands for success.
using Done = std::function<void(const Error* error)>;

// Any thread may call the methods.
class PendingCall {
 public:
  // Throws the error that ended the engine.
  void check_alive() const;
  // Throws std::logic_error, naming `call`, if another call is pending.
  void check_idle(const char* call) const;

  // Makes a call the pending one. Throws as the checks above do.
  void begin(Done done);
  // Ends the pending call with success, if there is one.
  void finish();
  // Ends the pending call with an error, which becomes that of every later call. The caller tells
  // the returned function, once it has stopped what is under way. Returns an empty function, and
  // changes nothing, if no call is pending.
  Done fail(const Error& error);

 private:
  mutable std::mutex mutex_;
  Done done_;
  std::optional<Error> failure_;
};

}  // namespace scmoe
