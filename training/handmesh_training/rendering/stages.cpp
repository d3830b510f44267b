// What comes before the pixels of one picture: its memory, light, tables. See raster.cpp.

#include "shade.cpp"

namespace {

// Rooms of one array after the other in a block of memory, each on a boundary of 16 bytes.
struct Rooms {
  uint8_t* base;  // null: only count
  int64_t used;
  template <typename T>
  HM_BOTH_MEMBER T* take(int64_t count) {
    T* room = base ? (T*)(base + used) : nullptr;
    used = (used + count * (int64_t)sizeof(T) + 15) & ~(int64_t)15;
    return room;
  }
};

// Points the scene's arrays into `memory`; returns the bytes they take.
HM_BOTH int64_t lay_out(const HmMesh& mesh, const HmBatch& batch, uint8_t* memory, Scene* s) {
  Rooms rooms = {memory, 0};
  s->face_normals = rooms.take<Vec3>(mesh.face_count);
  s->normals = rooms.take<Vec3>(mesh.vertex_count);
  s->points = rooms.take<Vec3>(mesh.vertex_count);
  s->ambient = rooms.take<Vec3>(mesh.vertex_count);
  s->in_light = rooms.take<Vec3>(mesh.vertex_count);
  s->planes = rooms.take<Planes>(mesh.face_count);
  s->visible = rooms.take<uint64_t>((int64_t)kSuper * kSuper * batch.size * batch.size);
  s->shadow = rooms.take<float>((int64_t)batch.shadow_size * batch.shadow_size);
  s->albedo = rooms.take<float>(3 * 256);
  s->response = rooms.take<uint8_t>(kToneTable);
  return rooms.used;
}

// The light's frame, fitted so that the mesh and what else casts shadow fall inside the map.
HM_DEVICE void fit_light(Scene* s) {
  s->light_z = load3(s->batch->key_direction + 3 * (int64_t)s->item);
  const Vec3 helper = fabsf(s->light_z.x) < 0.8f ? vec(1, 0, 0) : vec(0, 1, 0);
  s->light_x = normalised(cross(helper, s->light_z));
  s->light_y = cross(s->light_z, s->light_x);
  float lo[2] = {1e9f, 1e9f}, hi[2] = {-1e9f, -1e9f};
  auto include = [&](Vec3 p) {
    const float q[2] = {dot(p, s->light_x), dot(p, s->light_y)};
    for (int k = 0; k < 2; ++k) {
      lo[k] = fminf(lo[k], q[k]);
      hi[k] = fmaxf(hi[k], q[k]);
    }
  };
  for (int v = 0; v < s->mesh->vertex_count; ++v) include(vertex_of(*s, v));
  for (int i = 0; i < kSolids; ++i) {
    const Solid o = load_solid(*s, i);
    for (int k = 0; k < 8 && o.kind != kNoSolid && o.casts > 0.0f; ++k) include(corner_of(o, k));
  }
  const float extent = fmaxf(fmaxf(hi[0] - lo[0], hi[1] - lo[1]), 1e-6f);
  s->light_scale = (s->batch->shadow_size - 4) / extent;
  for (int k = 0; k < 2; ++k) s->light_origin[k] = lo[k] - 1.5f / s->light_scale;
}

// From the middle of the hand with the vertices [first, last) to that of its arm.
HM_DEVICE Vec3 find_arm(const Scene& s, int first, int last) {
  Vec3 sum[2] = {vec(0, 0, 0), vec(0, 0, 0)};
  int count[2] = {0, 0};
  for (int v = first; v < last; ++v) {
    const int beyond = s.mesh->arm[v] > 0.0f;
    sum[beyond] = add(sum[beyond], vertex_of(s, v));
    ++count[beyond];
  }
  if (count[0] == 0 || count[1] == 0) return vec(0, 1, 0);
  return normalised(sub(scale(sum[1], 1.0f / count[1]), scale(sum[0], 1.0f / count[0])));
}

// Albedo by texture value and response by light: entries first, first + step, ...
HM_DEVICE void fill_tables(const Scene& s, int first, int step) {
  const HmBatch& b = *s.batch;
  for (int i = first; i < 3 * 256; i += step) {
    const int c = i >> 8;
    const float v = ((i & 255) + 0.5f) / 255.5f;  // textures are stored as square roots of light
    s.albedo[i] = fminf(b.skin_gain[3 * s.item + c] * powf(v * v, b.skin_contrast[s.item]), 0.95f);
  }
  const float gamma = b.tone[2 * s.item], shoulder = b.tone[2 * s.item + 1];
  for (int i = first; i < kToneTable; i += step) {
    const float t = (float)i / (kToneTable - 1);
    float x = t * t * kToneMax;
    if (x > shoulder) x = shoulder + (1 - shoulder) * (1 - expf((shoulder - x) / (1 - shoulder)));
    x = x <= 0.0031308f ? 12.92f * x : 1.055f * powf(x, 1.0f / 2.4f) - 0.055f;
    s.response[i] = (uint8_t)(powf(clampf(x, 0.0f, 1.0f), gamma) * 255.0f + 0.5f);
  }
}

// Empties the two depth buffers: entries first, first + step, ...
HM_DEVICE void clear_buffers(const Scene& s, int first, int step) {
  const int samples = kSuper * kSuper * s.batch->size * s.batch->size;
  for (int i = first; i < samples; i += step) s.visible[i] = 0;
  const int texels = s.batch->shadow_size * s.batch->shadow_size;
  for (int i = first; i < texels; i += step) s.shadow[i] = -1e9f;
}

// Everything of the scene that is one for the whole picture.
HM_DEVICE void prepare(Scene* s) {
  const float* k = s->batch->camera + 4 * (int64_t)s->item;
  // A sample's centre lies a quarter of a pixel off the pixel's.
  s->grid.fx = (double)k[0] * kSuper;
  s->grid.fy = (double)k[1] * kSuper;
  s->grid.cx = ((double)k[2] + 0.5) * kSuper - 0.5;
  s->grid.cy = ((double)k[3] + 0.5) * kSuper - 0.5;
  s->ray_step[0] = (float)(1.0 / s->grid.fx);
  s->ray_step[1] = (float)(1.0 / s->grid.fy);
  s->ray_start[0] = (float)(-s->grid.cx / s->grid.fx);
  s->ray_start[1] = (float)(-s->grid.cy / s->grid.fy);
  fit_light(s);
  const int own = s->mesh->own_vertices;
  s->arm_axis[0] = find_arm(*s, 0, own);
  s->arm_axis[1] = find_arm(*s, own, s->mesh->vertex_count);
  prepare_ground(s);
}

}  // namespace
