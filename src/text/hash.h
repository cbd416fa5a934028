// Hashing for the tokenizers' open-addressing tables.
//
// Vocabularies come from strangers: the seed is drawn once per process, so that nobody can write a
// file whose tokens all collide. Tables are laid out by it, results never depend on it.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace pinhole {

uint64_t hash_seed();

// Both halves of the 128-bit product, folded: every bit of the input reaches every bit of the
// output.
inline uint64_t hash_mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t hash_text(std::string_view text, uint64_t seed) {
  const char* data = text.data();
  size_t left = text.size();
  uint64_t hash = seed ^ left;
  for (; left >= 8; left -= 8, data += 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    hash = hash_mix(hash ^ word, 0x9E3779B97F4A7C15u ^ seed);
  }
  uint64_t tail = 0;
  for (size_t i = 0; i < left; ++i) {
    tail |= static_cast<uint64_t>(static_cast<uint8_t>(data[i])) << (8 * i);
  }
  return hash_mix(hash ^ tail, 0xD6E8FEB86659FD93u ^ seed);
}

inline uint64_t hash_pair(uint32_t left, uint32_t right, uint64_t seed) {
  return hash_mix((static_cast<uint64_t>(left) << 32 | right) ^ seed, 0x9E3779B97F4A7C15u ^ seed);
}

// Where a hash begins to look in a table of `capacity` slots (any number below 2^32).
inline uint32_t hash_slot(uint64_t hash, uint32_t capacity) {
  return static_cast<uint32_t>((hash >> 32) * capacity >> 32);
}

} // namespace pinhole
