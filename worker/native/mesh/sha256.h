// SHA-256 (FIPS 180-4) and HMAC (RFC 2104) over it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace scmoe {

using Digest = std::array<uint8_t, 32>;

Digest sha256(std::span<const uint8_t> message);
Digest hmac_sha256(std::span<const uint8_t> key, std::span<const uint8_t> message);

// Whether the digests are equal, in a time that does not depend on their bytes.
bool equal_digests(const Digest& a, const Digest& b);

}  // namespace scmoe
