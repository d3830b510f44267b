// What one output pixel looks like: hand, solids, ground, background. See raster.cpp.

#include "ground.cpp"

namespace {

HM_DEVICE Vec3 background_at(const Scene& s, int x, int y) {
  const HmBatch& b = *s.batch;
  const float* m = b.background_map + 9 * (int64_t)s.item;
  const float cu = (x + 0.5f) / b.size, cv = (y + 0.5f) / b.size;
  const Vec3 q = vec(m[0] * cu + m[1] * cv + m[2], m[3] * cu + m[4] * cv + m[5],
                     m[6] * cu + m[7] * cv + m[8]);
  const int index = b.background[s.item];
  const bool panorama = b.is_panorama[index] != 0;
  float u, v;
  if (panorama) {
    u = turn(q.x, q.z) + 0.5f;
    v = 0.5f + 2.0f * turn(q.y, sqrtf(q.x * q.x + q.z * q.z));
  } else {
    u = q.x / q.z;
    v = q.y / q.z;
  }
  // Between two mip levels: defocus without the blocks of a single coarse one.
  const float blur = b.background_blur[s.item];
  const int level = (int)blur;
  const float fine = 1.0f - (blur - level);
  Vec3 c = scale(sample_texture(*s.backgrounds, index, level, u, v, panorama), fine);
  if (fine < 1.0f) {
    c = add(c, scale(sample_texture(*s.backgrounds, index, level + 1, u, v, panorama), 1 - fine));
  }
  c = scale(c, 1.0f / 255.0f);
  return mul(mul(c, c), load3(b.background_gain + 3 * (int64_t)s.item));  // stored as square roots
}

HM_DEVICE float look_up(const float* table, float value) {
  const int i = (int)value;
  const int j = i < 255 ? i + 1 : 255;
  return table[i] + (table[j] - table[i]) * (value - i);
}

// Cloth on the arm: woven stripes or checks, and the light and dark of its folds.
HM_DEVICE Vec3 shade_sleeve(const Scene& s, Surface a, float hem, float arm, Vec3 axis) {
  const float* sleeve = sleeve_of(s);
  const int picture = s.batch->background[s.item] % 7 + 1;
  const float along = dot(a.p, axis);
  const Vec3 across = sub(a.p, scale(axis, along));
  // Folds run mostly around the arm: noise that changes fast along it and slowly across.
  const float step = 0.15f;
  const Vec3 q = add(scale(across, 28.0f), scale(axis, 75.0f * along));
  const float here = noise(q, picture);
  const Vec3 rise = vec(noise(add(q, vec(step, 0, 0)), picture) - here,
                        noise(add(q, vec(0, step, 0)), picture) - here,
                        noise(add(q, vec(0, 0, step)), picture) - here);
  const Vec3 flat = sub(rise, scale(a.n, dot(rise, a.n)));
  a.n = normalised(sub(a.n, scale(flat, 0.9f / step)));
  const float deep = 0.65f + 0.6f * here;
  a.sky = scale(sky_at(s, a.n), a.open * deep);
  const Vec3 cells = vec(arm * 40.0f * (1 + picture % 3), dot(across, s.light_x) * 60.0f, 0.5f);
  const float thread = sleeve[5] * pattern(picture % 2 ? kStripes : kPlaid, picture, cells, 0.3f);
  const float seam = hem < 0.018f && hem > 0.0145f ? 0.75f : 1.0f;  // the cuff's stitching
  a.albedo = scale(load3(sleeve + 2), (1.0f - thread) * seam);
  a.gloss = a.wrap = 0.0f;
  a.roughness = 1.0f;
  return reflected(s, a);
}

// Creases, veins and pores: the normal leans as if darker skin lay deeper.
HM_DEVICE Vec3 bumped(const Scene& s, int face, Vec3 n, int level, float u, float v, float here) {
  const float relief = s.batch->relief[s.item];
  if (relief <= 0.0f) return n;
  const int skin = s.batch->skin[s.item], slot = skin * s.skins->levels + level;
  const int32_t* extent = s.skins->extent + 2 * slot;
  const float du = 1.0f / extent[1], dv = 1.0f / extent[0];
  const float rise = relief / fmaxf(here, 8.0f);  // metres per relative change
  const float hu = (sample_texture(*s.skins, skin, level, u + du, v, false).y - here) * rise / du;
  const float hv = (sample_texture(*s.skins, skin, level, u, v + dv, false).y - here) * rise / dv;
  // Gradients of the barycentrics, then of u and v, along the face.
  const int32_t* f = s.mesh->faces + 3 * face;
  const Vec3 p = s.points[f[0]], e1 = sub(s.points[f[1]], p), e2 = sub(s.points[f[2]], p);
  const Vec3 area = cross(e1, e2);
  const float inverse = 1.0f / fmaxf(dot(area, area), 1e-16f);
  const float* c = s.mesh->uv + 6 * (int64_t)face;
  const float k1 = hu * (c[2] - c[0]) + hv * (c[3] - c[1]);
  const float k2 = hu * (c[4] - c[0]) + hv * (c[5] - c[1]);
  const Vec3 slope = scale(add(scale(cross(e2, area), k1), scale(cross(area, e1), k2)), inverse);
  const float steep = sqrtf(dot(slope, slope));
  return normalised(sub(n, scale(slope, 1.0f / fmaxf(1.0f, 1.4f * steep))));
}

HM_DEVICE Vec3 shade_hand(const Scene& s, int face, const float w[3], Vec3 p, Vec3 n, float open,
                          int coarser) {
  const HmBatch& b = *s.batch;
  const int32_t* f = s.mesh->faces + 3 * face;
  const float* sleeve = sleeve_of(s);
  Surface a;
  a.p = p;
  a.n = n;
  a.open = open;
  a.sky = scale(mix3(s.ambient[f[0]], s.ambient[f[1]], s.ambient[f[2]], w[0], w[1], w[2]), open);
  a.in_light = mix3(s.in_light[f[0]], s.in_light[f[1]], s.in_light[f[2]], w[0], w[1], w[2]);
  const float* up = s.mesh->arm;
  const float arm = up[f[0]] * w[0] + up[f[1]] * w[1] + up[f[2]] * w[2], hem = arm - sleeve[0];
  if (hem > 0.0f) {
    return shade_sleeve(s, a, hem, arm, s.arm_axis[f[0] < s.mesh->own_vertices ? 0 : 1]);
  }
  const float* uv = s.mesh->uv + 6 * (int64_t)face;
  const float tu = uv[0] * w[0] + uv[2] * w[1] + uv[4] * w[2];
  const float tv = uv[1] * w[0] + uv[3] * w[1] + uv[5] * w[2];
  const int level = clampi(s.planes[face].mip + coarser, 0, s.skins->levels - 1);
  const Vec3 texel = sample_texture(*s.skins, b.skin[s.item], level, tu, tv, false);
  a.albedo = vec(look_up(s.albedo, texel.x), look_up(s.albedo + 256, texel.y),
                 look_up(s.albedo + 512, texel.z));
  a.n = bumped(s, face, n, level, tu, tv, texel.y);
  a.gloss = b.gloss[3 * (int64_t)s.item];
  a.roughness = b.gloss[3 * (int64_t)s.item + 1];
  a.wrap = b.gloss[3 * (int64_t)s.item + 2];
  const float under = clampf(1.0f + 80.0f * hem, 0.0f, 1.0f);  // the hem's own shadow
  a.sky = scale(a.sky, 1.0f - 0.6f * under * under);
  return reflected(s, a);
}

HM_DEVICE uint8_t respond(const Scene& s, float light) {
  const float t = sqrtf(clampf(light, 0.0f, kToneMax) * (1.0f / kToneMax)) * (kToneTable - 1);
  return s.response[(int)(t + 0.5f)];
}

// Whether a sample of the mesh shows the hand: not the arm, nor a sleeve that reaches over it.
HM_DEVICE bool shows_hand(const Scene& s, uint64_t visible, int x, int y) {
  const int face = face_of(visible);
  if (!s.mesh->hand[face]) return false;
  const int32_t* f = s.mesh->faces + 3 * face;
  const float* arm = s.mesh->arm;
  const float start = sleeve_of(s)[0];
  if (fmaxf(fmaxf(arm[f[0]], arm[f[1]]), arm[f[2]]) <= start) return true;
  const Planes& t = s.planes[face];
  const float dx = (float)(x - t.x0), dy = (float)(y - t.y0), z = 1.0f / inverse_z_of(visible);
  const float w1 = at(t.first, dx, dy) * z, w2 = at(t.second, dx, dy) * z;
  return arm[f[0]] * (1.0f - w1 - w2) + arm[f[1]] * w1 + arm[f[2]] * w2 <= start;
}

HM_DEVICE void shade_pixel(const Scene& s, const HmOutput& out, int x, int y) {
  const HmBatch& b = *s.batch;
  const int width = kSuper * b.size;
  const int64_t pixel = ((int64_t)s.item * b.size + y) * b.size + x;
  uint64_t seen[kSuper * kSuper];
  int covered = 0, mesh = 0, hand = 0, same = 0;
  uint64_t front = 0;      // nearest sample of the mesh, hand and arm
  float far_rz = 1e9f;     // farthest
  uint64_t bare = 0;       // nearest sample of the hand
  for (int i = 0; i < kSuper * kSuper; ++i) {
    const int at_x = kSuper * x + (i & 1), at_y = kSuper * y + (i >> 1);
    seen[i] = s.visible[(int64_t)at_y * width + at_x];
    if (seen[i] == 0) continue;
    ++covered;
    if (face_of(seen[i]) >= s.mesh->face_count) {
      same += face_of(seen[i]) == face_of(seen[0]);
      continue;
    }
    ++mesh;
    if (seen[i] > front) front = seen[i];
    far_rz = fminf(far_rz, inverse_z_of(seen[i]));
    if (!shows_hand(s, seen[i], at_x, at_y)) continue;
    ++hand;
    if (seen[i] > bare) bare = seen[i];
  }
  Vec3 sum = vec(0, 0, 0);
  // Inside one smooth surface a single sample in the pixel's middle stands for all.
  const bool one_solid = same == kSuper * kSuper;
  const bool smooth =
      one_solid || (mesh == kSuper * kSuper && inverse_z_of(front) < 1.015f * far_rz);
  const int shaded = smooth ? 1 : kSuper * kSuper;
  float open = -1.0f;
  uint8_t part = kNoPart;
  Vec3 normal = vec(0, 0, 0);
  for (int i = 0; i < shaded; ++i) {
    const uint64_t visible = one_solid ? seen[0] : (smooth ? front : seen[i]);
    if (visible == 0) continue;
    const int face = face_of(visible);
    const float sx = kSuper * x + (smooth ? 0.5f : (float)(i & 1));
    const float sy = kSuper * y + (smooth ? 0.5f : (float)(i >> 1));
    if (face >= s.mesh->face_count) {
      float rz = 0.0f;  // four samples of a smooth surface: their mean
      for (int k = 0; smooth && k < kSuper * kSuper; ++k) rz += inverse_z_of(seen[k]);
      rz = smooth ? rz * (1.0f / (kSuper * kSuper)) : inverse_z_of(visible);
      sum = add(sum, shade_solid(s, face - s.mesh->face_count, sx, sy, rz));
      continue;
    }
    const Planes& t = s.planes[face];
    const float dx = sx - t.x0, dy = sy - t.y0, z = 1.0f / fmaxf(at(t.inverse_z, dx, dy), 1e-4f);
    const float w1 = clampf(at(t.first, dx, dy) * z, 0.0f, 1.0f);
    const float w2 = clampf(at(t.second, dx, dy) * z, 0.0f, 1.0f - w1);
    const float w[3] = {1.0f - w1 - w2, w1, w2};
    const int32_t* f = s.mesh->faces + 3 * face;
    const Vec3 p = mix3(s.points[f[0]], s.points[f[1]], s.points[f[2]], w[0], w[1], w[2]);
    const Vec3 n = scale(normalised(mix3(s.normals[f[0]], s.normals[f[1]], s.normals[f[2]], w[0],
                                         w[1], w[2])), t.facing);
    if (open < 0.0f) open = openness(s, (int)sx, (int)sy, p, n, 1.0f);
    sum = add(sum, shade_hand(s, face, w, p, n, open, smooth ? 1 : 0));
    if (visible == front) {
      normal = n;
      part = s.mesh->parts[f[w[0] >= w1 ? (w[0] >= w2 ? 0 : 2) : (w1 >= w2 ? 1 : 2)]];
    }
  }
  if (smooth) sum = scale(sum, kSuper * kSuper);
  const float share = covered * (1.0f / (kSuper * kSuper));
  Vec3 light = scale(sum, 1.0f / (kSuper * kSuper));
  if (covered < kSuper * kSuper) {
    float cover;
    Vec3 behind = shade_ground(s, x, y, &cover);
    if (cover < 1.0f) behind = blend3(background_at(s, x, y), behind, cover);
    light = add(light, scale(behind, 1.0f - share));
  }
  const float* exposure = b.exposure + 3 * (int64_t)s.item;
  out.image[3 * pixel] = respond(s, light.x * exposure[0]);
  out.image[3 * pixel + 1] = respond(s, light.y * exposure[1]);
  out.image[3 * pixel + 2] = respond(s, light.z * exposure[2]);
  out.mask[pixel] = (uint8_t)(hand * 255.0f / (kSuper * kSuper) + 0.5f);
  if (out.depth) out.depth[pixel] = bare ? 1.0f / inverse_z_of(bare) : 0.0f;
  if (out.parts) out.parts[pixel] = part;
  for (int k = 0; out.normals && k < 3; ++k) {
    out.normals[3 * pixel + k] = k == 0 ? normal.x : (k == 1 ? normal.y : normal.z);
  }
}

}  // namespace
