// PNG files with their checksums put right, so that mutations reach what lies behind them.
#include "picture_fuzz.h"

#include <vector>
#include <zlib.h>

namespace {

uint32_t be32(const uint8_t* at) {
  return uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | at[3];
}

void repair_checksums(std::vector<uint8_t>& file) {
  size_t offset = 8;
  while (offset + 12 <= file.size()) {
    const size_t length = be32(file.data() + offset);
    if (length > file.size() - offset - 12)
      return;
    uint8_t* type = file.data() + offset + 4;
    const auto crc = static_cast<uint32_t>(crc32(0, type, static_cast<uInt>(length + 4)));
    for (int i = 0; i < 4; ++i) {
      type[4 + length + i] = static_cast<uint8_t>(crc >> (24 - 8 * i));
    }
    offset += length + 12;
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<uint8_t> file(data, data + size);
  repair_checksums(file);
  pinhole::fuzz_picture(std::as_bytes(std::span(file)));
  return 0;
}
