// How two ranks prove to each other, before anything else is sent, that they belong to one attempt.
//
// Both know the attempt's token and send none of it: three messages carry HMAC-SHA256 under the
// token over the two ranks, the size of the world and a random nonce of each side. The dialling
// rank begins, so that a listening rank sends not one byte to a stranger. A recorded first message
// is worth nothing: its nonce was seen before, and a new nonce of the listening rank goes into the
// last message.
#pragma once

#include <array>
#include <cstdint>

#include "mesh/sha256.h"

namespace scmoe {

// The attempt's token, which never travels. Without it nobody joins; it encrypts nothing.
using TokenDigest = Digest;
using Nonce = std::array<uint8_t, 16>;

// From the dialling rank.
struct Hello {
  uint32_t magic, protocol, rank;
  Nonce nonce;
  Digest proof;
};
// From the listening rank.
struct Answer {
  Nonce nonce;
  Digest proof;
};
// From the dialling rank. Without it a listener could keep a connection that the dialling rank has
// given up, or take a recorded Hello for a peer.
struct Confirmation {
  Digest proof;
};

// One connection between two ranks, as either side sees it.
class Handshake {
 public:
  Handshake(const TokenDigest& token, uint32_t world_size, uint32_t dialler, uint32_t listener)
      : token_(token), world_size_(world_size), dialler_(dialler), listener_(listener) {}

  // The dialling side. `answers` is false for an answer of anybody but that rank of this attempt.
  Hello hello();
  bool answers(const Answer& answer);

  // The listening side. `proves` is false for a greeting from elsewhere.
  bool proves(const Hello& hello);
  Answer answer();

  // Both sides, after the answer.
  Confirmation confirmation() const;
  bool confirms(const Confirmation& confirmation) const;

 private:
  Digest proof(uint8_t message) const;

  TokenDigest token_;
  uint32_t world_size_, dialler_, listener_;
  Nonce dialled_{}, listened_{};  // the nonces of the dialling and of the listening rank
};

// Whether the message begins as a Hello of this version does; the proof is not looked at.
bool is_hello(const Hello& hello);

// Whether the number may be the beginning of a Hello.
bool is_magic(uint32_t magic);

}  // namespace scmoe
