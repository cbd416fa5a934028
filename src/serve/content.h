// Conversations out of requests: turns with pictures in their places.
#pragma once

#include "answer/answerer.h"
#include "serve/api_error.h"
#include "serve/fetch.h"
#include "serve/model_service.h"

#include <atomic>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole::serve {

inline constexpr size_t kMaxTurns = 4096;
inline constexpr size_t kMaxPictures = 64;

struct ContentOptions {
  bool allow_fetch = false;
  FetchLimits fetch;
  const std::atomic<bool>* gone = nullptr; // null: nothing is fetched
};

struct PictureBytes {
  std::string bytes;
  std::string field;       // of the request, for errors
  bool low_detail = false; // as OpenAI's detail "low": at most 512 x 512 pixels
};

struct Conversation {
  std::vector<ChatTurn> turns;
  std::vector<PictureBytes> pictures;
};

// The bytes of a data: URL, of an address where that is allowed; `field` names it in errors.
ApiResult<std::string> read_picture_url(std::string_view url, const std::string& field,
                                        const ContentOptions& options);
// Base64 with or without "data:...;base64," before it.
ApiResult<std::string> read_base64_picture(std::string_view text, const std::string& field);

ApiResult<void> add_picture(Conversation& conversation, ChatTurn& turn, PictureBytes picture);

// Sizes the pictures for this model; the bytes move.
ApiResult<std::vector<Picture>> open_pictures(std::vector<PictureBytes>& pictures,
                                              const ModelService& service);

} // namespace pinhole::serve
