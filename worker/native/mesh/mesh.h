// Connects the ranks: one TCP connection per pair, which the higher rank dials.
#pragma once

#include <string>
#include <vector>

#include "interrupt.h"
#include "mesh/handshake.h"
#include "mesh/socket.h"
#include "program/program.h"

namespace scmoe {

struct PeerAddress {
  std::string host;  // name or address
  int port = 0;
};

struct MeshOptions {
  Topology topology;
  std::vector<PeerAddress> peers;  // by rank; this rank's own entry is ignored
  TokenDigest token;
  std::chrono::milliseconds timeout;
};

// Returns one connected socket per rank, and an empty one at this rank's own place. Peers may start
// later than this rank: it dials them again and again until the deadline. A connection that does
// not prove to be a peer's (handshake.h) gets no answer, is closed and delays no other. Throws
// PEER_TIMEOUT naming a missing rank, or ABORTED.
std::vector<Socket> connect_mesh(const MeshOptions& options, const Socket& listener, Interrupt& interrupt);

}  // namespace scmoe
