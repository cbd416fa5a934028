# pinhole_layer(name DEPS lib...): static library ph_<name> from every src/<name>/**.cc. JSON's header
# takes longer to compile than most files that read it, so it is compiled once for each of them.
function(pinhole_layer name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS src/${name}/*.cc)
  if(sources)
    add_library(ph_${name} STATIC ${sources})
    target_include_directories(ph_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(ph_${name} PUBLIC ${ARG_DEPS})
    pinhole_unity(ph_${name})
    if(NOT name MATCHES "^(base|quant|image)$") # few of their files read it
      target_precompile_headers(ph_${name} PRIVATE <nlohmann/json.hpp>)
    endif()
  else()
    add_library(ph_${name} INTERFACE)
    target_include_directories(ph_${name} INTERFACE ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(ph_${name} INTERFACE ${ARG_DEPS})
  endif()
endfunction()
