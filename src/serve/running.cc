#include "serve/running.h"

#include "serve/fields.h"
#include "serve/process_memory.h"

namespace pinhole::serve {

HttpReply running(Api& api, HttpRequest&) {
  const RunningModels now = api.registry.running();
  Json models = Json::array();
  for (const RunningModel& model : now.models) {
    models.push_back(
        {{"name", model.name},
         {"phase", model.phase},
         {"is_external", model.is_external},
         {"reserved_bytes", model.reserved_bytes},
         {"mapped_bytes", model.mapped_bytes},
         {"planned_bytes", model.planned_bytes},
         {"in_flight", model.in_flight},
         {"waiting", model.waiting},
         {"expires_in_ms", model.expires_in ? Json(model.expires_in->count()) : Json()},
         {"error", model.error}});
  }
  HttpReply reply;
  reply.body = dump({{"limit_bytes", now.limit_bytes},
                     {"reserved_bytes", now.reserved_bytes},
                     {"planned_bytes", now.planned_bytes},
                     {"rss_anon_bytes", anonymous_bytes_now()},
                     {"swaps", now.swaps},
                     {"models", std::move(models)}});
  return reply;
}

} // namespace pinhole::serve
