// Any bytes as a safetensors file and as a shard index: an error, or tables inside the bytes.
#include "file/safetensors.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pinhole;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  (void)for_each_index_entry({reinterpret_cast<const char*>(data), size}, "index.json",
                             [](const std::string&, const std::string& shard) -> Status {
                               if (shard.empty() || shard.find('/') != std::string::npos ||
                                   shard[0] == '.')
                                 std::abort();
                               return {};
                             });
  const auto part = parse_safetensors(bytes, "fuzz.safetensors");
  if (!part) {
    if (part.error().text().find("fuzz.safetensors") == std::string::npos)
      std::abort();
    return 0;
  }
  uint64_t total = 0;
  for (const Tensor& tensor : part->tensors) {
    if (tensor.file_offset + tensor.bytes > size)
      std::abort();
    if (tensor.elements() * row_bytes(tensor.format, 1) != static_cast<int64_t>(tensor.bytes)) {
      std::abort();
    }
    total += tensor.bytes;
  }
  for (const OtherTensor& tensor : part->others)
    total += tensor.bytes;
  if (total > size)
    std::abort();
  return 0;
}
