#include "answer/answer.h"

#include <algorithm>

namespace pinhole {

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
  case FinishReason::kStop:
    return "stop";
  case FinishReason::kLength:
    return "length";
  case FinishReason::kContext:
    return "context";
  }
  return "?";
}

std::string StopFilter::push(std::string_view text) {
  if (stopped_)
    return {};
  held_ += text;
  size_t cut = std::string::npos;
  for (const std::string& stop : stops_) {
    if (!stop.empty())
      cut = std::min(cut, held_.find(stop));
  }
  if (cut != std::string::npos) {
    stopped_ = true;
    std::string out = held_.substr(0, cut);
    held_.clear();
    return out;
  }
  // Hold back the longest tail that begins a stop string.
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(held_.size(), stop.empty() ? 0 : stop.size() - 1); n > keep; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n)))
        keep = n;
    }
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

std::string StopFilter::finish() {
  std::string out;
  std::swap(out, held_);
  return stopped_ ? std::string() : out;
}

} // namespace pinhole
