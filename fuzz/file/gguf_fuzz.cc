// Any bytes as a GGUF part: an error, or tables whose every value can be read.
#include "file/gguf_reader.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pinhole;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto part = GgufReader::parse(bytes, "fuzz.gguf");
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
