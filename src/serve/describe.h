// Pictures for a model that reads none: another one describes them, and the descriptions stand in
// their places.
#pragma once

#include "serve/api.h"

#include <string>
#include <vector>

namespace pinhole::serve {

// Of each picture, in order, by route.describes, which has been given back when this returns. The
// bytes move.
ApiResult<std::vector<std::string>> picture_texts(Api& api, const ModelRoute& route,
                                                  std::vector<PictureBytes>& pictures,
                                                  HttpRequest& http);

// The text that stands for picture `idx` of a conversation.
std::string picture_text(size_t idx, const std::string& description);

// The conversation has no pictures afterwards.
ApiResult<void> describe_pictures(Api& api, const ModelRoute& route, Conversation& conversation,
                                  HttpRequest& http);

} // namespace pinhole::serve
