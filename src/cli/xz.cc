#include "cli/xz.h"

#include "base/mapped_file.h"

#include <fmt/format.h>
#include <lzma.h>

namespace pinhole::cli {

Result<std::string> read_xz_file(const std::string& path, uint64_t max_bytes) {
  PINHOLE_TRY(const MappedFile file, MappedFile::open(path));
  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&stream, 256 << 20, 0) != LZMA_OK) {
    return fail(ErrorCode::kIo, "cannot start the xz decoder", path);
  }
  stream.next_in = reinterpret_cast<const uint8_t*>(file.bytes().data());
  stream.avail_in = file.bytes().size();
  std::string out;
  lzma_ret code = LZMA_OK;
  while (code == LZMA_OK) {
    uint8_t buffer[1 << 16];
    stream.next_out = buffer;
    stream.avail_out = sizeof buffer;
    code = lzma_code(&stream, LZMA_FINISH);
    out.append(reinterpret_cast<const char*>(buffer), sizeof buffer - stream.avail_out);
    if (out.size() > max_bytes)
      break;
  }
  lzma_end(&stream);
  if (out.size() > max_bytes) {
    return fail(ErrorCode::kTooLarge, fmt::format("unpacks to more than {} bytes", max_bytes),
                path);
  }
  if (code != LZMA_STREAM_END) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("not a whole .xz file (liblzma code {})", static_cast<int>(code)),
                path);
  }
  return out;
}

} // namespace pinhole::cli
