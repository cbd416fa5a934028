// Any text as a configuration whose model is described without weights, as `pinhole plan` does it:
// an error or a model whose bytes add up.
#include "model/model.h"

#include <cstdlib>
#include <fstream>
#include <unistd.h>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pinhole;
  static const std::string path =
      "/tmp/pinhole-plan-fuzz-" + std::to_string(::getpid()) + ".json"; // opened by its name
  {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  }
  auto files = ModelFiles::open_to_plan(path);
  if (files) {
    if (const auto model = describe_model(*files)) {
      uint64_t bytes = 0;
      for (const Graph* graph : {&model->text, &model->vision}) {
        for (const auto& [name, tensor] : graph->declared_tensors())
          bytes += tensor.bytes;
      }
      if (bytes != model->weight_bytes)
        std::abort();
    }
  }
  ::unlink(path.c_str());
  return 0;
}
