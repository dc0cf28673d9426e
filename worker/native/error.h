// The error that the engine reports when it cannot go on: a code that says what happens next, a
// message, and the op and the peer that are concerned.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace scmoe {

// The codes of `EngineErrorCode` in worker/engine.ts, except those that only TypeScript raises.
inline constexpr const char* kBadProgram = "BAD_PROGRAM";
inline constexpr const char* kOutOfMemory = "OUT_OF_MEMORY";
inline constexpr const char* kPeerLost = "PEER_LOST";
inline constexpr const char* kPeerTimeout = "PEER_TIMEOUT";
inline constexpr const char* kBadPeer = "BAD_PEER";
inline constexpr const char* kListenFailed = "LISTEN_FAILED";
inline constexpr const char* kDeviceMissing = "DEVICE_MISSING";  // no GPU, or it lacks software
inline constexpr const char* kDeviceFailed = "DEVICE_FAILED";    // of the device, driver or NCCL
inline constexpr const char* kAborted = "ABORTED";
inline constexpr const char* kInternal = "INTERNAL";  // anything else

struct Error : std::runtime_error {
  Error(const char* code, const std::string& message, int peer = -1)
      : std::runtime_error(message), code(code), peer(peer) {}

  const char* code;
  int peer;        // -1: none
  std::string op;  // label; empty: none
};

}  // namespace scmoe
