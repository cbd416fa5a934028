#include "serve/content.h"

#include "file/http.h"
#include "serve/base64.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole::serve {

namespace {

constexpr int64_t kLowDetailPixels = 512 * 512;

} // namespace

ApiResult<std::string> read_base64_picture(std::string_view text, const std::string& field) {
  if (text.starts_with("data:"))
    return read_picture_url(text, field, {});
  auto bytes = decode_base64(text);
  if (!bytes || bytes->empty())
    return refuse(400, fmt::format("'{}' is not base64", field), field, "invalid_base64");
  return std::move(*bytes);
}

ApiResult<std::string> read_picture_url(std::string_view url, const std::string& field,
                                        const ContentOptions& options) {
  if (url.starts_with("data:")) {
    const size_t comma = url.find(',');
    const std::string_view head = url.substr(0, std::min(comma, url.size()));
    if (comma == std::string_view::npos || !head.ends_with(";base64")) {
      return refuse(400, fmt::format("'{}' is a data: URL without ';base64,'", field), field,
                    "invalid_image_url");
    }
    auto bytes = decode_base64(url.substr(comma + 1));
    if (!bytes || bytes->empty()) {
      return refuse(400, fmt::format("'{}' holds no base64 behind its comma", field), field,
                    "invalid_base64");
    }
    return std::move(*bytes);
  }
  if (!is_url(url)) {
    return refuse(400,
                  fmt::format("'{}' is no data: URL{}; files of this machine are not read", field,
                              options.allow_fetch ? " and no http(s) address" : ""),
                  field, "invalid_image_url");
  }
  if (!options.allow_fetch || options.gone == nullptr) {
    return refuse(400,
                  fmt::format("'{}' is an address, and this server fetches none; send a data: URL, "
                              "or start it with --allow-fetch",
                              field),
                  field, "image_url_not_allowed");
  }
  auto bytes = fetch_picture(std::string(url), options.fetch, *options.gone);
  if (!bytes)
    return tl::unexpected<ApiError>(to_api_error(bytes.error(), field));
  return std::move(*bytes);
}

ApiResult<void> add_picture(Conversation& conversation, ChatTurn& turn, PictureBytes picture) {
  if (conversation.pictures.size() == kMaxPictures) {
    return refuse(400, fmt::format("more than {} pictures", kMaxPictures), picture.field,
                  "too_many_images");
  }
  turn.pictures.push_back(conversation.pictures.size());
  turn.picture_places.push_back(turn.text.size());
  conversation.pictures.push_back(std::move(picture));
  return {};
}

ApiResult<std::vector<Picture>> open_pictures(std::vector<PictureBytes>& pictures,
                                              const ModelService& service) {
  std::vector<Picture> out;
  const auto& spec = service.loaded().model.pictures;
  for (PictureBytes& picture : pictures) {
    if (!spec) {
      return refuse(400, "this model reads no pictures", picture.field, "no_vision");
    }
    PictureOptions options = service.picture_options();
    if (picture.low_detail && spec->square_px == 0) {
      const int64_t side = spec->patch_size * spec->merge_size;
      const int64_t low = std::max<int64_t>(1, kLowDetailPixels / (side * side));
      options.max_tokens = options.max_tokens > 0 ? std::min(options.max_tokens, low) : low;
    }
    auto opened = open_picture(std::move(picture.bytes), picture.field, *spec, options);
    if (!opened) {
      ApiError error = to_api_error(opened.error(), picture.field);
      error.code =
          opened.error().code == ErrorCode::kTooLarge ? "image_too_large" : "invalid_image";
      return tl::unexpected<ApiError>(std::move(error));
    }
    out.push_back(std::move(*opened));
  }
  return out;
}

} // namespace pinhole::serve
