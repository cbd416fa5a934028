// Any bytes as a GGUF part: an error, or tables whose every value can be read. Any beginning of
// them as that of a larger file: where its header ends agrees with what the whole is.
#include "file/gguf_reader.h"

#include <cstdlib>

namespace {

// Of the first bytes, some length that the input chooses, and of all.
void check_extent(std::span<const std::byte> bytes, bool parsed) {
  using namespace pinhole;
  const auto whole = GgufReader::header_extent(bytes, bytes.size(), "fuzz.gguf");
  if (parsed && !whole)
    std::abort();
  if (whole && (!whole->complete || whole->bytes > bytes.size()))
    std::abort();
  const size_t length =
      bytes.empty() ? 0 : std::to_integer<size_t>(bytes.back()) * bytes.size() / 256;
  const auto first = GgufReader::header_extent(bytes.first(length), bytes.size(), "fuzz.gguf");
  if (!first) {
    if (whole)
      std::abort();
    return;
  }
  if (first->complete && (!whole || whole->bytes != first->bytes))
    std::abort();
  if (!first->complete && (first->bytes <= length || first->bytes > bytes.size()))
    std::abort();
  if (!first->complete && whole && first->bytes > whole->bytes)
    std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pinhole;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto part = GgufReader::parse(bytes, "fuzz.gguf");
  check_extent(bytes, part.has_value());
  if (!part) {
    if (part.error().text().find("fuzz.gguf") == std::string::npos)
      std::abort();
    return 0;
  }
  volatile unsigned sum = 0;
  for (const auto& entry : part->meta.entries()) {
    (void)part->meta.integer(entry.key);
    (void)part->meta.number(entry.key);
    (void)part->meta.boolean_or(entry.key, false);
    if (const auto text = part->meta.string(entry.key)) {
      for (const char c : *text)
        sum = sum + static_cast<unsigned char>(c);
    }
    const auto array = part->meta.array(entry.key);
    if (!array)
      continue;
    if (const auto list = (*array)->strings()) {
      for (const auto text : *list)
        sum = sum + (text.empty() ? 0u : text.back());
    }
    (void)(*array)->integers();
    (void)(*array)->numbers();
  }
  for (const Tensor& tensor : part->tensors) {
    if (tensor.bytes == 0 || tensor.file_offset + tensor.bytes > size)
      std::abort();
    if (tensor.rows() * row_bytes(tensor.format, tensor.cols()) !=
        static_cast<int64_t>(tensor.bytes)) {
      std::abort();
    }
    sum = sum + static_cast<unsigned>(tensor.data[0]) +
          static_cast<unsigned>(tensor.data[tensor.bytes - 1]);
  }
  return 0;
}
