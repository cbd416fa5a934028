// How many groups of prefix codes a lossless WebP bitstream asks for, found without decoding it.
//
// libwebp makes a decoding table of 12 to 20 kB per group before it reads a pixel, and a file of
// 300 kB can name 65,536 groups: more than a gigabyte for one megapixel. The number stands in the
// entropy image, behind the transforms' own small images. All of these are walked symbol by symbol;
// no pixel is kept, because back references and colour cache only repeat what literals brought.
//
// Source: WebP lossless bitstream specification, sections 4 to 7 (RFC 9649, section 3).
#include "image/container.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

namespace pinhole::image_internal {

namespace {

constexpr uint32_t kMaxCodeLength = 15;
constexpr uint32_t kLengthCodes = 24, kDistanceCodes = 40, kLiterals = 256;
constexpr uint32_t kMaxCacheBits = 11;
constexpr uint32_t kCodeLengthCodes = 19;

// Least significant bit first; after the end, zeros and `overrun`.
class BitReader {
 public:
  explicit BitReader(Bytes bytes) : bytes_(bytes) {}

  uint32_t read(uint32_t count) {
    while (available_ < count) {
      uint64_t next = 0;
      if (offset_ < bytes_.size()) {
        next = byte_at(bytes_, offset_);
      } else {
        overrun_ = true;
      }
      ++offset_;
      window_ |= next << available_;
      available_ += 8;
    }
    const auto value = static_cast<uint32_t>(window_ & ((uint64_t{1} << count) - 1));
    window_ >>= count;
    available_ -= count;
    return value;
  }
  bool overrun() const { return overrun_; }

 private:
  Bytes bytes_;
  size_t offset_ = 0;
  uint64_t window_ = 0;
  uint32_t available_ = 0;
  bool overrun_ = false;
};

// A canonical prefix code, read bit by bit.
class PrefixCode {
 public:
  // False when the lengths do not make a complete code; a single symbol takes no bits.
  bool build(const std::vector<uint8_t>& lengths) {
    count_.fill(0);
    symbols_.clear();
    uint32_t used = 0;
    for (const uint8_t length : lengths) {
      ++count_[length];
      used += length != 0;
    }
    count_[0] = 0;
    for (uint32_t length = 1; length <= kMaxCodeLength; ++length) {
      for (uint32_t symbol = 0; count_[length] != 0 && symbol < lengths.size(); ++symbol) {
        if (lengths[symbol] == length) {
          symbols_.push_back(static_cast<uint16_t>(symbol));
        }
      }
    }
    if (used == 1) {
      return true;
    }
    uint32_t open = 1;
    for (uint32_t length = 1; length <= kMaxCodeLength; ++length) {
      open = open * 2;
      if (count_[length] > open) {
        return false;
      }
      open -= count_[length];
    }
    return used > 0 && open == 0;
  }

  uint32_t read(BitReader& bits) const {
    if (symbols_.size() == 1) {
      return symbols_[0];
    }
    uint32_t code = 0, first = 0, index = 0;
    for (uint32_t length = 1; length <= kMaxCodeLength; ++length) {
      code = code * 2 + bits.read(1);
      first *= 2;
      if (code - first < count_[length]) {
        return symbols_[index + code - first];
      }
      index += count_[length];
      first += count_[length];
    }
    return 0; // not reached: the code is complete
  }

 private:
  std::array<uint32_t, kMaxCodeLength + 1> count_{}; // [length]
  std::vector<uint16_t> symbols_;                    // by length, then by value
};

std::optional<PrefixCode> read_prefix_code(BitReader& bits, uint32_t alphabet) {
  std::vector<uint8_t> lengths(alphabet);
  PrefixCode code;
  if (bits.read(1) != 0) { // one or two symbols
    const bool two = bits.read(1) != 0;
    const uint32_t first = bits.read(bits.read(1) != 0 ? 8 : 1);
    const uint32_t second = two ? bits.read(8) : first;
    if (first >= alphabet || second >= alphabet) {
      return std::nullopt;
    }
    lengths[first] = lengths[second] = 1;
    return code.build(lengths) ? std::optional(code) : std::nullopt;
  }
  static constexpr uint8_t kOrder[kCodeLengthCodes] = {17, 18, 0, 1,  2,  3,  4,  5,  16, 6,
                                                       7,  8,  9, 10, 11, 12, 13, 14, 15};
  std::vector<uint8_t> length_lengths(kCodeLengthCodes);
  const uint32_t given = 4 + bits.read(4);
  for (uint32_t i = 0; i < given; ++i) {
    length_lengths[kOrder[i]] = static_cast<uint8_t>(bits.read(3));
  }
  PrefixCode length_code;
  if (!length_code.build(length_lengths)) {
    return std::nullopt;
  }
  uint32_t tokens = alphabet;
  if (bits.read(1) != 0) {
    tokens = 2 + bits.read(2 + 2 * bits.read(3));
    if (tokens > alphabet) {
      return std::nullopt;
    }
  }
  uint8_t previous = 8;
  for (uint32_t symbol = 0; symbol < alphabet && tokens > 0; --tokens) {
    const uint32_t token = length_code.read(bits);
    if (token < 16) {
      lengths[symbol++] = static_cast<uint8_t>(token);
      previous = token != 0 ? static_cast<uint8_t>(token) : previous;
      continue;
    }
    const uint32_t repeat = token == 16   ? 3 + bits.read(2)
                            : token == 17 ? 3 + bits.read(3)
                                          : 11 + bits.read(7);
    if (repeat > alphabet - symbol) {
      return std::nullopt;
    }
    std::fill_n(lengths.begin() + symbol, repeat, token == 16 ? previous : uint8_t{0});
    symbol += repeat;
  }
  return code.build(lengths) ? std::optional(code) : std::nullopt;
}

// Length or distance of a back reference.
uint32_t read_extra(BitReader& bits, uint32_t symbol) {
  if (symbol < 4) {
    return symbol + 1;
  }
  const uint32_t extra = (symbol - 2) >> 1;
  return ((2 + (symbol & 1)) << extra) + bits.read(extra) + 1;
}

std::optional<uint32_t> read_cache_size(BitReader& bits) {
  if (bits.read(1) == 0) {
    return 0;
  }
  const uint32_t cache_bits = bits.read(4);
  if (cache_bits < 1 || cache_bits > kMaxCacheBits) {
    return std::nullopt;
  }
  return 1u << cache_bits;
}

// Walks one of the small images; the largest red*256 + green among its pixels.
std::optional<uint32_t> walk_small_image(BitReader& bits, uint64_t pixel_count) {
  const auto cache_size = read_cache_size(bits);
  if (!cache_size) {
    return std::nullopt;
  }
  std::array<PrefixCode, 5> codes; // green and lengths, red, blue, alpha, distance
  const uint32_t alphabets[5] = {kLiterals + kLengthCodes + *cache_size, kLiterals, kLiterals,
                                 kLiterals, kDistanceCodes};
  for (size_t i = 0; i < codes.size(); ++i) {
    auto code = read_prefix_code(bits, alphabets[i]);
    if (!code) {
      return std::nullopt;
    }
    codes[i] = std::move(*code);
  }
  uint32_t largest = 0;
  for (uint64_t done = 0; done < pixel_count;) {
    if (bits.overrun()) {
      return std::nullopt;
    }
    const uint32_t green = codes[0].read(bits);
    if (green < kLiterals) {
      const uint32_t red = codes[1].read(bits);
      codes[2].read(bits);
      codes[3].read(bits);
      largest = std::max(largest, red * 256 + green);
      ++done;
    } else if (green < kLiterals + kLengthCodes) {
      done += read_extra(bits, green - kLiterals);
      read_extra(bits, codes[4].read(bits));
    } else {
      ++done;
    }
  }
  return largest;
}

uint64_t blocks_of(uint64_t size, uint32_t bits) { return (size + (1u << bits) - 1) >> bits; }

} // namespace

std::optional<uint64_t> count_prefix_groups(Bytes stream, uint64_t width, uint64_t height) {
  BitReader bits(stream);
  uint32_t transforms_seen = 0;
  while (bits.read(1) != 0) {
    const uint32_t type = bits.read(2);
    if ((transforms_seen >> type & 1) != 0) {
      return std::nullopt;
    }
    transforms_seen |= 1u << type;
    if (type == 2) { // subtract green: no data
      continue;
    }
    uint64_t pixel_count = 0;
    if (type == 3) { // colour indexing: a palette, and several indices to a pixel
      const uint32_t colors = bits.read(8) + 1;
      pixel_count = colors;
      width = blocks_of(width, colors <= 2 ? 3 : colors <= 4 ? 2 : colors <= 16 ? 1 : 0);
    } else { // predictor, cross-colour
      const uint32_t block_bits = bits.read(3) + 2;
      pixel_count = blocks_of(width, block_bits) * blocks_of(height, block_bits);
    }
    if (!walk_small_image(bits, pixel_count)) {
      return std::nullopt;
    }
  }
  if (!read_cache_size(bits)) {
    return std::nullopt;
  }
  uint64_t groups = 1;
  if (bits.read(1) != 0) {
    const uint32_t block_bits = bits.read(3) + 2;
    const auto largest =
        walk_small_image(bits, blocks_of(width, block_bits) * blocks_of(height, block_bits));
    if (!largest) {
      return std::nullopt;
    }
    groups = uint64_t{*largest} + 1;
  }
  return bits.overrun() ? std::nullopt : std::optional(groups);
}

} // namespace pinhole::image_internal
