// pinhole.toml from strangers: settings or an error, and what is accepted can be used.

#include "swap/settings.h"
#include "swap/setup.h"

#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto settings = pinhole::parse_settings(text, "fuzz.toml");
  if (!settings) {
    if (settings.error().text().empty())
      std::abort();
    return 0;
  }
  if (!pinhole::route_request(*settings, "", false))
    std::abort(); // there is always a default
  for (size_t i = 0; i < settings->models.size(); ++i) {
    pinhole::ModelSettings& model = settings->models[i];
    if (model.source.empty() == model.command.empty())
      std::abort();
    if (pinhole::route_request(*settings, model.name, false)->answers != i)
      std::abort();
    (void)pinhole::route_request(*settings, model.name, true);
    if (!model.is_measured && !model.ram_bytes)
      model.ram_bytes = 1;
  }
  const auto config = pinhole::swap_config(*settings, int64_t{1} << 30);
  if (config && config->models.size() != settings->models.size())
    std::abort();
  return 0;
}
