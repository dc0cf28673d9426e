// How ranks find one another: one TCP connection per pair, the higher rank dials the lower.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "interrupt.h"
#include "mesh/socket.h"
#include "program/program.h"

namespace scmoe {

struct PeerAddress {
  std::string host;  // name or address
  int port = 0;
};

// A digest of the attempt's token. Keeps older attempts and strangers out; it is not encryption.
using TokenDigest = std::array<uint8_t, 32>;

struct MeshOptions {
  Topology topology;
  std::vector<PeerAddress> peers;  // by rank; this rank's own entry is not used
  TokenDigest token;
  std::chrono::milliseconds timeout;
};

// One connected socket per rank, none at this rank's own place. Peers may start later than this rank: dialling repeats
// until the deadline. Whoever connects without the right greeting is dropped and delays nobody. Throws PEER_TIMEOUT
// naming a rank that is missing, or ABORTED.
std::vector<Socket> connect_mesh(const MeshOptions& options, const Socket& listener, Interrupt& interrupt);

}  // namespace scmoe
