-- What images look like.
update images set aspect_ratio = 1.5, average_colour = '#808080', palette = '{#c83c32,#ffffff}',
    palette_shares = '{0.6,0.4}', miniature = decode(repeat('7f', 144), 'hex'), appearance_revision = 1 where id <= 3;
