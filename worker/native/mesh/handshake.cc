#include "mesh/handshake.h"

#include <sys/random.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "error.h"

namespace scmoe {
namespace {

constexpr uint32_t kMagic = 0x6f4d6353;  // "ScMo"
constexpr uint32_t kProtocol = 2;

// The position of a message in the handshake, so that no message can stand for another one.
enum Message : uint8_t { kHello = 1, kAnswer = 2, kConfirmation = 3 };

Nonce random_nonce() {
  Nonce nonce;
  if (getentropy(nonce.data(), nonce.size()) != 0) {
    throw Error(kInternal, std::string("the system gives no random numbers: ") + std::strerror(errno));
  }
  return nonce;
}

}  // namespace

bool is_magic(uint32_t magic) {
  return magic == kMagic;
}
bool is_hello(const Hello& hello) {
  return hello.magic == kMagic && hello.protocol == kProtocol;
}

Digest Handshake::proof(uint8_t message) const {
  std::vector<uint8_t> text = {message};
  for (const uint32_t number : {kProtocol, world_size_, dialler_, listener_}) {
    for (int shift = 0; shift < 32; shift += 8) text.push_back(uint8_t(number >> shift));
  }
  text.insert(text.end(), dialled_.begin(), dialled_.end());
  // The listening rank has no nonce yet when it reads the first message.
  if (message != kHello) text.insert(text.end(), listened_.begin(), listened_.end());
  return hmac_sha256(token_, text);
}

Hello Handshake::hello() {
  dialled_ = random_nonce();
  return {kMagic, kProtocol, dialler_, dialled_, proof(kHello)};
}

bool Handshake::proves(const Hello& hello) {
  dialled_ = hello.nonce;
  return is_hello(hello) && hello.rank == dialler_ && equal_digests(hello.proof, proof(kHello));
}

Answer Handshake::answer() {
  listened_ = random_nonce();
  return {listened_, proof(kAnswer)};
}

bool Handshake::answers(const Answer& answer) {
  listened_ = answer.nonce;
  return equal_digests(answer.proof, proof(kAnswer));
}

Confirmation Handshake::confirmation() const {
  return {proof(kConfirmation)};
}

bool Handshake::confirms(const Confirmation& confirmation) const {
  return equal_digests(confirmation.proof, proof(kConfirmation));
}

}  // namespace scmoe
